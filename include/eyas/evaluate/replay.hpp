#pragma once
#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "eyas/core/convert.hpp"
#include "eyas/evaluate/acceptance.hpp"
#include "eyas/evaluate/draft_tree.hpp"
#include "eyas/loader/batch.hpp"

namespace eyas {

/// Acceptance length on texts whose features are there: the draft decodes along them, and a draft
/// token is accepted where the text has it. No target is run. On texts that the target answered
/// greedily, captured in fp32, this is what speculative decoding of them accepts; on others how
/// well the draft foresees them. Rounds begin at the first token of each supervised stretch, as if
/// all before were the prompt. Several texts go on side by side. Borrows the draft; one thread
/// drives it.
template <Device D>
class Replay {
public:
    /// Throws what DraftShape::check() throws, and ContractError for fewer sequences than one.
    Replay(DraftDecoder<D>& draft, DraftShape shape, std::int64_t sequences = 16)
        : draft_(draft),
          sequences_(sequences),
          cache_(draft.make_cache(std::numeric_limits<std::int32_t>::max())),
          trees_(draft, cache_, std::move(shape)) {
        if (sequences < 1) throw ContractError("no sequence at a time", "Replay", "Use at least 1");
    }

    /// Takes the batch's rows (copies them) and decodes while as many are there as go side by side.
    /// What lies beyond the draft's positions is left out. Throws DataError for features of another
    /// width and ids outside the vocabulary, ContractError for packed rows.
    void add(const Batch& batch) {
        check(batch);
        for (std::int64_t b = 0; b < batch.batch_size(); ++b) {
            auto text = std::make_unique<Text>(cache_);
            read(batch, b, *text);
            if (text->seek(0)) running_.push_back(std::move(text));
        }
        while (std::ssize(running_) >= sequences_) round();
    }

    /// Decodes what is left and returns the sums of everything added.
    Acceptance finish() {
        while (!running_.empty()) round();
        return std::exchange(sums_, {});
    }

private:
    struct Text {
        KvCache& cache;
        KvCache::Sequence sequence;           // holds a row for each token before `fed`
        std::vector<std::int64_t> ids, mask;  // [T]
        std::vector<float> captured;          // [T, 3D]
        std::int64_t fed = 0;
        std::int64_t current = 0;  // the last token that is known
        std::int64_t end = 0;      // of the supervised stretch

        explicit Text(KvCache& c) : cache(c) {}
        Text(const Text&) = delete;
        ~Text() { cache.release(sequence); }

        std::int64_t token(std::int64_t t) const { return ids[static_cast<std::size_t>(t)]; }
        std::int64_t left() const { return end - 1 - current; }

        /// The next supervised stretch from `from` that has a token to propose; false: none.
        bool seek(std::int64_t from) {
            const auto n = std::ssize(ids);
            const auto supervised = [&](std::int64_t t) {
                return mask[static_cast<std::size_t>(t)] != 0;
            };
            for (auto t = std::max<std::int64_t>(from, 1); t < n; t = end) {
                while (t < n && !supervised(t)) ++t;
                current = end = t;
                while (end < n && supervised(end)) ++end;
                if (left() > 0) return true;
                if (end == t) break;
            }
            return false;
        }
    };

    void check(const Batch& batch) const {
        const auto width = 3 * draft_.config().target_hidden_size;
        if (batch.hidden_state.shape[2] != width)
            throw DataError("captured states are " + std::to_string(batch.hidden_state.shape[2]) +
                                " wide, the draft's are " + std::to_string(width),
                            "Replay", "Take draft and features from the same target");
        if (batch.document)
            for (auto begin : batch.document->as<std::int64_t>())
                if (begin != 0)
                    throw ContractError("several samples share a row", "Replay",
                                        "Use a loader without pack_tokens");
        for (auto id : batch.input_ids.as<std::int64_t>())
            if (id < 0 || id >= draft_.config().vocab_size)
                throw DataError("token id " + std::to_string(id), "Replay",
                                "Take draft and features from the same target");
    }

    void read(const Batch& batch, std::int64_t b, Text& text) const {
        const auto rows = batch.tokens(), width = batch.hidden_state.shape[2];
        const auto row = [&](const TensorView& v, std::int64_t t) {
            return v.as<std::int64_t>()[static_cast<std::size_t>(b * rows + t)];
        };
        // The draft's row of the last token but one is the last that it computes.
        const auto most = std::min(rows, draft_.max_positions() + 1);
        std::int64_t n = 0;
        while (n < most && row(batch.attention_mask, n)) ++n;
        for (std::int64_t t = 0; t < n; ++t) {
            text.ids.push_back(row(batch.input_ids, t));
            text.mask.push_back(row(batch.loss_mask, t));
        }
        text.captured.resize(static_cast<std::size_t>(n * width));
        const auto& h = batch.hidden_state;
        const auto begin = static_cast<std::size_t>(b * rows * width) * size_of(h.dtype);
        convert_into({h.data + begin, h.dtype, {n, width}},
                     {reinterpret_cast<std::byte*>(text.captured.data()), DType::F32, {n, width}});
    }

    void round() {
        const auto count = std::min(std::ssize(running_), sequences_);
        feed(count);
        const auto trees = trees_.grow(roots_);
        for (std::int64_t i = 0; i < count; ++i)
            take(*running_[static_cast<std::size_t>(i)], trees[static_cast<std::size_t>(i)]);
        std::erase_if(running_, [](const auto& t) { return t->left() <= 0; });
    }

    /// The draft's rows up to the last known token of the first `count` texts: roots_.
    void feed(std::int64_t count) {
        const auto d = draft_.config().hidden_size, width = 3 * draft_.config().target_hidden_size;
        std::vector<std::int64_t> ids, last;
        std::vector<NewRows> rows;
        std::int64_t n = 0;
        for (std::int64_t i = 0; i < count; ++i) {
            const auto& t = *running_[static_cast<std::size_t>(i)];
            n += t.current - t.fed;
            last.push_back(n - 1);
        }
        states_.resize(static_cast<std::size_t>(n * d));
        for (std::int64_t i = 0, at = 0; i < count; ++i) {
            auto& t = *running_[static_cast<std::size_t>(i)];
            const auto fresh = t.current - t.fed;
            draft_.project(t.captured.data() + t.fed * width, fresh, states_.data() + at * d);
            ids.insert(ids.end(), t.ids.begin() + t.fed + 1, t.ids.begin() + t.current + 1);
            rows.push_back({&t.sequence, fresh});
            t.fed = t.current;
            at += fresh;
        }
        draft_.forward(states_.data(), ids, rows, cache_, states_.data());
        roots_.clear();
        for (std::size_t i = 0; i < last.size(); ++i)
            roots_.push_back({&running_[i]->sequence, states_.data() + last[i] * d, i,
                              running_[i]->current + 1, running_[i]->left() - 1});
    }

    void take(Text& t, const DraftTree& tree) {
        std::int64_t taken = 0, node = -1;
        for (std::int64_t next;
             taken < t.left() && (next = tree.child(node, t.token(t.current + 1 + taken))) >= 0;
             ++taken)
            node = next;
        const bool judged_more = taken < t.left() && tree.has_child(node);
        sums_.add_pass(taken + judged_more, taken, taken + 1);
        t.current += taken + 1;
        if (t.left() <= 0) t.seek(t.end);
    }

    DraftDecoder<D>& draft_;
    std::int64_t sequences_;
    KvCache cache_;
    DraftTrees<D> trees_;
    std::vector<std::unique_ptr<Text>> running_;
    std::vector<DraftRoot> roots_;
    std::vector<float> states_;
    Acceptance sums_;
};

}  // namespace eyas
