#pragma once
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <exception>
#include <functional>
#include <list>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "eyas/capture/generated_sequence.hpp"
#include "eyas/capture/rollout_options.hpp"
#include "eyas/capture/sampling.hpp"
#include "eyas/capture/target_family.hpp"
#include "eyas/capture/target_model.hpp"
#include "eyas/core/random.hpp"

namespace eyas {

/// Answers prompts, many at a time (continuous batching: a sequence that ended leaves at once and
/// the next one enters). Each forward takes one row of every sequence that decodes and rows of
/// prompts that are new. A request enters when the cache has the pages that it may come to need, so
/// no sequence ever has to wait for another one's pages.
///
/// The token at position t of request i is drawn by keyed_uniform(seed, i, t). Where the model is
/// row_invariant(), answers and states are the same bits whatever the slots, the prefill and the
/// cache, and the states are those of one forward over the whole text. One thread; the model is
/// borrowed.
template <Device D, PrecisionPolicy P = F32>
class Rollout {
public:
    using OnFinished = std::function<void(GeneratedSequence&&)>;

    /// Throws ContractError for options that are out of range.
    Rollout(TargetModel<D, P>& model, RolloutOptions options)
        : model_(model), options_(std::move(options)) {
        options_.check(model_.config().vocab_size);
    }

    /// Answers all requests, in their order as far as slots and cache allow; `on_finished` gets
    /// each as it ends, on the calling thread. What it throws, and what the forward does, ends the
    /// call; nothing is kept between calls. Before anything is computed throws DataError for a
    /// prompt that is empty, holds an id outside the vocabulary, or is with its answer longer than
    /// longest_sequence(), and ContractError for one that never fits into the cache.
    RolloutReport run(std::span<const RolloutRequest> requests, const OnFinished& on_finished) {
        const auto cache_tokens = check(requests);
        auto cache = model_.make_cache(cache_tokens);
        std::list<Running> running;
        report_ = {};
        report_.requests = std::ssize(requests);
        const auto start = std::chrono::steady_clock::now();
        std::size_t next = 0;
        while (next < requests.size() || !running.empty()) {
            if (options_.stop && options_.stop->load()) {
                report_.interrupted = true;
                break;
            }
            while (next < requests.size() && admit(requests[next], cache, running)) ++next;
            step(cache, running);
            report_.seconds =
                std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
            leave(cache, running, on_finished);
            if (options_.on_step) options_.on_step(report_);
        }
        return report_;
    }

private:
    struct Running {
        GeneratedSequence out;
        KvCache::Sequence cache;  // of the rows that were computed
        std::int64_t rows = 0;    // in the next forward
        bool ended = false;       // no token follows

        std::int64_t pending() const { return out.tokens() - cache.length(); }
    };

    /// The cache's tokens.
    std::int64_t check(std::span<const RolloutRequest> requests) const {
        const auto& config = model_.config();
        std::vector<std::int64_t> needs;
        for (const auto& r : requests) {
            const auto where = "request " + std::to_string(r.index);
            if (r.prompt.empty()) throw DataError("an empty prompt", where, "Give some token");
            for (auto id : r.prompt)
                if (id < 0 || id >= config.vocab_size)
                    throw DataError("the prompt holds token " + std::to_string(id), where,
                                    "Tokenise with the target's tokenizer; its ids are below " +
                                        std::to_string(config.vocab_size));
            const auto text = std::to_string(r.prompt.size()) + " prompt tokens and " +
                              std::to_string(options_.max_new_tokens) + " new ones";
            if (options_.max_new_tokens > longest_sequence(config) - std::ssize(r.prompt))
                throw DataError(
                    text + " are beyond the model's " + detail::longest_sequence_text(config),
                    where, "Shorten the prompt, or ask for fewer new tokens");
            const auto tokens = std::ssize(r.prompt) + options_.max_new_tokens;
            needs.push_back(KvCache::pages_of(tokens) * key_block);
            if (options_.cache_tokens > 0 && needs.back() > options_.cache_tokens)
                throw ContractError(
                    text + " never fit into a KV cache of " + std::to_string(options_.cache_tokens),
                    where, "Give it at least " + std::to_string(needs.back()) + " tokens");
        }
        if (options_.cache_tokens > 0) return options_.cache_tokens;
        std::ranges::sort(needs, std::greater());
        needs.resize(std::min(needs.size(), static_cast<std::size_t>(options_.slots)));
        std::int64_t tokens = 0;
        for (auto n : needs) tokens += n;
        return tokens;
    }

    bool admit(const RolloutRequest& r, KvCache& cache, std::list<Running>& running) {
        if (std::ssize(running) >= options_.slots) return false;
        Running s;
        const auto tokens = std::ssize(r.prompt) + options_.max_new_tokens;
        if (!cache.reserve(s.cache, tokens)) return false;
        s.out.index = r.index;
        s.out.input_ids.reserve(static_cast<std::size_t>(tokens));
        s.out.input_ids = r.prompt;
        s.out.prompt_tokens = std::ssize(r.prompt);
        report_.prompt_tokens += s.out.prompt_tokens;
        running.push_back(std::move(s));
        return true;
    }

    /// One forward; draws a token for each sequence of which all rows are computed.
    void step(KvCache& cache, std::list<Running>& running) {
        ids_.clear();
        std::vector<NewRows> rows;
        std::vector<Running*> members;
        auto prefill = options_.prefill_tokens;
        for (auto& s : running) {
            const bool decodes = s.pending() == 1;
            s.rows = decodes ? 1 : std::min(prefill, s.pending());
            if (s.rows == 0) continue;
            if (!decodes) prefill -= s.rows;
            const auto from = s.out.input_ids.begin() + s.cache.length();
            ids_.insert(ids_.end(), from, from + s.rows);
            rows.push_back({&s.cache, s.rows});
            members.push_back(&s);
        }
        const auto states = model_.forward(ids_, rows, cache);
        ++report_.steps;
        report_.sequence_steps += std::ssize(members);
        std::vector<Running*> drawing;
        std::vector<std::int64_t> last_rows;
        std::int64_t row = 0;
        for (auto* s : members) {
            if (options_.capture) keep_states(*s, states, row);
            row += s->rows;
            if (s->pending() > 0 || s->ended) continue;
            drawing.push_back(s);
            last_rows.push_back(row - 1);
        }
        if (!drawing.empty()) draw(drawing, last_rows, states.last);
    }

    void keep_states(Running& s, const TargetStates& states, std::int64_t first) const {
        const auto append = [&](const Tensor& from, std::vector<BFloat16>& to) {
            const auto width = from.shape()[1];
            if (to.empty())
                to.reserve(static_cast<std::size_t>(
                    (s.out.prompt_tokens + options_.max_new_tokens) * width));
            const float* x = from.as<float>().data() + first * width;
            for (std::int64_t i = 0; i < s.rows * width; ++i) to.push_back(BFloat16(x[i]));
        };
        append(states.captured, s.out.states.captured);
        append(states.last, s.out.states.last);
    }

    void draw(std::span<Running* const> drawing, std::span<const std::int64_t> rows,
              const Tensor& last) {
        const auto width = last.shape()[1], vocab = model_.config().vocab_size;
        Tensor states(DType::F32, {std::ssize(rows), width});
        for (std::size_t i = 0; i < rows.size(); ++i)
            std::copy_n(last.as<float>().data() + rows[i] * width, width,
                        states.as<float>().data() + static_cast<std::int64_t>(i) * width);
        const Tensor logits = model_.logits(states);
        distributions_.resize(std::max(distributions_.size(), rows.size()));
        std::vector<std::exception_ptr> errors(rows.size());  // none may leave a parallel loop
        model_.device().for_each_row(std::ssize(rows), [&](std::int64_t row) {
            const auto i = static_cast<std::size_t>(row);
            try {
                auto& d = distributions_[i];
                d.assign(logits.as<float>().subspan(i * static_cast<std::size_t>(vocab),
                                                    static_cast<std::size_t>(vocab)),
                         options_.sampling);
                auto& out = drawing[i]->out;
                out.input_ids.push_back(d.draw(
                    keyed_uniform(options_.sampling.seed, static_cast<std::uint64_t>(out.index),
                                  static_cast<std::uint64_t>(out.tokens()))));
            } catch (...) {
                errors[i] = std::current_exception();
            }
        });
        for (const auto& e : errors)
            if (e) std::rethrow_exception(e);
        for (auto* s : drawing) judge(*s);
    }

    /// Whether the token just drawn ends its sequence.
    void judge(Running& s) {
        ++report_.generated_tokens;
        const bool stop =
            std::ranges::find(options_.stop_ids, s.out.input_ids.back()) != options_.stop_ids.end();
        s.ended = stop || s.out.generated_tokens() == options_.max_new_tokens;
        s.out.finish = stop ? Finish::stop : Finish::length;
    }

    /// Gives ended sequences away; with capture the last token's row has to be computed first.
    void leave(KvCache& cache, std::list<Running>& running, const OnFinished& on_finished) {
        for (auto s = running.begin(); s != running.end();) {
            if (!s->ended || (options_.capture && s->pending() > 0)) {
                ++s;
                continue;
            }
            cache.release(s->cache);
            ++(s->out.finish == Finish::stop ? report_.stopped : report_.cut);
            auto out = std::move(s->out);
            s = running.erase(s);
            if (on_finished) on_finished(std::move(out));
        }
    }

    TargetModel<D, P>& model_;
    RolloutOptions options_;
    RolloutReport report_;
    std::vector<std::int64_t> ids_;
    std::vector<TokenDistribution> distributions_;  // one a drawing sequence, used again
};

}  // namespace eyas
