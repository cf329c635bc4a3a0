#pragma once
#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "eyas/capture/target_model.hpp"
#include "eyas/evaluate/speculative_options.hpp"
#include "eyas/evaluate/verification.hpp"

namespace eyas {

/// Speculative decoding with an EAGLE3 draft (arXiv 2503.01840): in each round the draft proposes a
/// chain or a tree, one forward of the target judges all of it. Several texts go on side by side,
/// each with a tree of its own; a text's tokens do not depend on the others where the target is
/// row_invariant(). Borrows target and draft. One thread drives it.
template <Device D, PrecisionPolicy P = F32>
class SpeculativeDecoder {
public:
    /// Throws ContractError for options that do not fit, DataError for a draft of another target's
    /// sizes.
    SpeculativeDecoder(TargetModel<D, P>& target, DraftDecoder<D>& draft,
                       SpeculativeOptions options)
        : target_(target),
          draft_(draft),
          o_(std::move(options)),
          target_cache_(target.make_cache(room(options_checked().sequences))),
          draft_cache_(draft.make_cache(room(o_.sequences))),
          trees_(draft, draft_cache_, o_.shape,
                 o_.verification == Verification::Rejection ? &o_.sampling : nullptr) {
        const auto& c = draft.config();
        if (c.vocab_size != target.config().vocab_size ||
            c.target_hidden_size != target.config().hidden_size)
            throw DataError("the draft is one of another target", "SpeculativeDecoder",
                            "Its vocabulary and target_hidden_size must be the target's");
        if (target.captured_layers().size() != 3)
            throw ContractError("the target captures another number of layers than 3",
                                "SpeculativeDecoder",
                                "Name the three that the draft was trained on");
    }

    /// Decodes all prompts; `on_text` hears of each when it ends. Returns the sums over these
    /// texts; those that a stop cut short are not told. Throws DataError, before any work, for an
    /// empty prompt or one that leaves no position to decode, and for ids outside the vocabulary.
    /// After an error the decoder is as before the call.
    Acceptance run(std::span<const std::vector<std::int64_t>> prompts,
                   const std::function<void(const DecodedText&)>& on_text = {}) {
        for (std::size_t i = 0; i < prompts.size(); ++i) check(i, prompts[i]);
        struct Release {  // also when something throws
            std::vector<std::unique_ptr<Text>>& texts;
            ~Release() { texts.clear(); }
        } release{running_};
        Acceptance all;
        std::size_t next = 0;
        while (!stopped() && (next < prompts.size() || !running_.empty())) {
            while (next < prompts.size() && std::ssize(running_) < o_.sequences)
                start(next, prompts[next]), ++next;
            round();
            std::erase_if(running_, [&](auto& text) {
                if (!text->done) return false;
                all.add(text->out.acceptance);
                if (on_text) on_text(text->out);
                return true;
            });
        }
        return all;
    }

private:
    struct Text {
        DecodedText out;
        KvCache& target_cache;
        KvCache& draft_cache;
        // The target's holds all tokens but the last; the draft's a row for each of these, but the
        // last `pending`.
        KvCache::Sequence target, draft;
        std::vector<float> pending;  // captured states [n, 3D] that the draft has not seen
        std::int64_t pending_rows = 0;
        std::int64_t limit = 0;  // tokens at most
        bool done = false;

        Text(KvCache& t, KvCache& d) : target_cache(t), draft_cache(d) {}
        Text(const Text&) = delete;
        ~Text() { target_cache.release(target), draft_cache.release(draft); }

        std::int64_t length() const { return std::ssize(out.input_ids); }
        std::int64_t left() const { return limit - length(); }
    };

    const SpeculativeOptions& options_checked() const {
        o_.check();
        require_stop_ids(o_.stop_ids, target_.config().vocab_size, "SpeculativeOptions");
        return o_;
    }
    std::int64_t room(std::int64_t sequences) const {
        const auto draft = std::max(o_.shape.nodes(), o_.shape.expanded());
        return sequences * (target_.config().max_position_embeddings + draft + 64);
    }
    bool stopped() const { return o_.stop && o_.stop->load(); }

    std::int64_t positions() const {
        return decodable_positions(target_.config(), draft_.config());
    }

    void check(std::size_t index, const std::vector<std::int64_t>& prompt) const {
        const auto tokens = std::ssize(prompt), v = target_.config().vocab_size;
        const auto what = "prompt " + std::to_string(index) + " has ";
        if (tokens == 0 || tokens >= positions())
            throw DataError(what + std::to_string(tokens) + " tokens", "SpeculativeDecoder",
                            "Give 1 to " + std::to_string(positions() - 1) + " tokens");
        for (auto id : prompt)
            if (id < 0 || id >= v)
                throw DataError(
                    what + "token id " + std::to_string(id), "SpeculativeDecoder",
                    "Use the target's tokenizer; its ids are below " + std::to_string(v));
    }

    void start(std::size_t index, const std::vector<std::int64_t>& prompt) {
        auto text = std::make_unique<Text>(target_cache_, draft_cache_);
        const auto tokens = std::ssize(prompt);
        text->out.index = index;
        text->out.input_ids = prompt;
        text->out.prompt_tokens = tokens;
        text->limit = tokens + std::min(positions() - tokens, o_.max_new_tokens);
        const NewRows rows{&text->target, tokens};
        const auto states = target_.forward(prompt, std::span(&rows, 1), target_cache_);
        remember(*text, states, 0, tokens);
        append(*text, chosen(logits_of(states, tokens - 1, 1).template as<float>(), *text, tokens));
        running_.push_back(std::move(text));
    }

    /// What the target chooses at `position` by itself.
    std::int64_t chosen(std::span<const float> logits, const Text& text, std::int64_t position) {
        if (o_.sampling.greedy())
            return checked_most_probable(logits, "SpeculativeDecoder: the target");
        distribution_.assign(logits, o_.sampling);
        return distribution_.draw(
            keyed_uniform(o_.sampling.seed, text.out.index, static_cast<std::uint64_t>(position)));
    }

    void append(Text& text, std::int64_t token) {
        text.out.input_ids.push_back(token);
        text.done = text.left() <= 0 || std::ranges::find(o_.stop_ids, token) != o_.stop_ids.end();
    }

    bool drafts() const { return o_.shape.depth() > 0; }

    /// States that the draft will go on from.
    void remember(Text& text, const TargetStates& states, std::int64_t row, std::int64_t n) {
        if (!drafts()) return;
        const auto width = states.captured.shape()[1];
        const float* from = states.captured.as<float>().data() + row * width;
        text.pending.insert(text.pending.end(), from, from + n * width);
        text.pending_rows += n;
    }

    void round() {
        active_.clear();
        for (auto& t : running_)
            if (!t->done) active_.push_back(t.get());
        if (active_.empty()) return;
        if (drafts()) extend_drafts();
        const std::vector<DraftTree> none(active_.size());
        verify(drafts() ? std::span<const DraftTree>(trees_.grow(roots_)) : none);
    }

    /// The draft's rows of tokens that were decoded last; their states are the trees' roots.
    void extend_drafts() {
        const auto d = draft_.config().hidden_size;
        std::vector<std::int64_t> ids;
        std::vector<NewRows> rows;
        std::int64_t n = 0, at = 0;
        for (auto* t : active_) n += t->pending_rows;
        states_.resize(static_cast<std::size_t>(n * d));
        for (auto* t : active_) {
            draft_.project(t->pending.data(), t->pending_rows, states_.data() + at * d);
            const auto end = t->out.input_ids.end();
            ids.insert(ids.end(), end - t->pending_rows, end);
            rows.push_back({&t->draft, t->pending_rows});
            at += t->pending_rows;
        }
        draft_.forward(states_.data(), ids, rows, draft_cache_, states_.data());
        roots_.clear();
        at = 0;
        for (auto* t : active_) {
            at += t->pending_rows;
            // The target adds a token of its own, and what is beyond the limit has no position.
            roots_.push_back({&t->draft, states_.data() + (at - 1) * d, t->out.index, t->length(),
                              t->left() - 1});
            t->pending.clear(), t->pending_rows = 0;
        }
    }

    /// One forward of the target over each text's last token and its tree.
    void verify(std::span<const DraftTree> trees) {
        std::vector<std::int64_t> ids;
        std::vector<std::vector<std::int64_t>> parents(trees.size());
        std::vector<NewRows> rows;
        for (std::size_t i = 0; i < trees.size(); ++i) {
            ids.push_back(active_[i]->out.input_ids.back());
            ids.insert(ids.end(), trees[i].tokens.begin(), trees[i].tokens.end());
            parents[i].push_back(-1);
            for (auto p : trees[i].parents) parents[i].push_back(p + 1);
            rows.push_back({&active_[i]->target, std::ssize(parents[i]), parents[i]});
        }
        const auto states = target_.forward(ids, rows, target_cache_);
        std::int64_t row = 0;
        for (std::size_t i = 0; i < trees.size();) {
            // Of several texts at a time: the head is read once for all of them.
            std::int64_t n = trees[i].size() + 1;
            auto end = i + 1;
            for (; end < trees.size() && n + trees[end].size() < judged_together; ++end)
                n += trees[end].size() + 1;
            const Tensor logits = logits_of(states, row, n);
            for (std::int64_t at = 0; i < end; ++i) {
                take(*active_[i], trees[i], verdict(*active_[i], trees[i], logits, at), states,
                     row + at);
                at += trees[i].size() + 1;
            }
            row += n;
        }
    }

    /// Of n rows from `row`.
    Tensor logits_of(const TargetStates& states, std::int64_t row, std::int64_t n) const {
        const auto d = target_.config().hidden_size;
        return target_.logits(
            {states.last.view().data + static_cast<std::size_t>(row * d) * 4, DType::F32, {n, d}});
    }

    /// `first`: row of the logits of what follows the text itself.
    Verdict verdict(const Text& text, const DraftTree& tree, const Tensor& logits,
                    std::int64_t first) {
        const auto v = target_.config().vocab_size;
        const auto of_row = [&](std::int64_t i) {
            return logits.as<float>().subspan(static_cast<std::size_t>((first + i) * v),
                                              static_cast<std::size_t>(v));
        };
        if (o_.verification == Verification::Rejection)
            return reject(tree, of_row, o_.sampling, text.out.index, text.length());
        return match(tree, [&](std::int64_t i) {
            const auto behind = i == 0 ? 0 : tree.depth[static_cast<std::size_t>(i - 1)] + 1;
            return chosen(of_row(i), text, text.length() + behind);
        });
    }

    /// The accepted path and the target's token become part of the text, up to its end.
    void take(Text& text, const DraftTree& tree, const Verdict& v, const TargetStates& states,
              std::int64_t row) {
        std::vector<std::int64_t> slots{text.target.length()};
        remember(text, states, row, 1);
        std::int64_t yielded = 0, taken = 0;
        for (auto node : v.path) {
            append(text, tree.tokens[static_cast<std::size_t>(node)]);
            ++yielded, ++taken;
            if (text.done) break;
            slots.push_back(text.target.length() + node + 1);
            remember(text, states, row + node + 1, 1);
        }
        const bool judged_more = !text.done && tree.has_child(v.path.empty() ? -1 : v.path.back());
        if (!text.done) append(text, v.next), ++yielded;
        target_cache_.keep(text.target, slots);
        text.out.acceptance.add_pass(taken + judged_more, taken, yielded);
    }

    static constexpr std::int64_t judged_together = 64;  // rows of logits at a time

    TargetModel<D, P>& target_;
    DraftDecoder<D>& draft_;
    SpeculativeOptions o_;
    KvCache target_cache_, draft_cache_;
    DraftTrees<D> trees_;
    std::vector<std::unique_ptr<Text>> running_;
    std::vector<Text*> active_;
    std::vector<DraftRoot> roots_;
    std::vector<float> states_;  // of the draft's rows of a round
    TokenDistribution distribution_;
};

}  // namespace eyas
