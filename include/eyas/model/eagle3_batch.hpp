#pragma once
#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <utility>

#include "eyas/core/arena.hpp"
#include "eyas/format/hf_config.hpp"
#include "eyas/loader/batch.hpp"
#include "eyas/model/eagle3_options.hpp"
#include "eyas/model/states_ahead.hpp"
#include "eyas/ops/rows.hpp"

namespace eyas {

/// A batch checked against the model and brought into the form that the step reads. Its arrays
/// lie in the model's arena.
/// Shift rule: row p uses aux state p, the embedding of token p+1 and the teacher of position p+1;
/// at TTT step i everything but the attention mask and the positions moves i further. Nothing moves
/// from one document of a row to another.
template <class T>
struct Eagle3Batch {
    std::int64_t batch = 0, tokens = 0;      // B, T
    bool leading_keys = false;               // of every row: one document, whose first tokens, one
                                             // at least, are those that are attended to
    ArenaArray<std::int64_t> ids;            // [B, T] input ids
    ArenaArray<std::int64_t> mask;           // [B, T] attention mask
    ArenaArray<std::int64_t> document;       // [B, T] row of the first token of each row's document
    ArenaArray<std::int64_t> positions;      // [1 or 3, B, T]
    ArenaArray<std::int64_t> host_document;  // the same, for the host
    ArenaArray<std::int64_t> host_positions;  // the same, for the host
    ArenaArray<std::int64_t> supervised;      // the host's: flat target rows b*T + q with loss mask
                                              // 1, ascending
    ArenaArray<T> hidden;                     // [B*T, 3Dt]
    ArenaArray<T> target;                     // [B*T, Dt], unshifted
    StatesAhead<T> ahead;                     // without memory where the host's is the device's

    std::int64_t rows() const { return batch * tokens; }
    /// Of flat row b*T + t: how many rows of its document lie before it.
    std::int64_t in_document(std::int64_t row) const {
        return row % tokens - host_document[static_cast<std::size_t>(row)];
    }
    bool ends_document(std::int64_t row) const {
        const auto r = static_cast<std::size_t>(row);
        return row % tokens + 1 == tokens || host_document[r + 1] != host_document[r];
    }

    /// Memory for up to n rows; `own_memory`: the device has.
    void lay_out(Arena& arena, const ModelConfig& c, std::int64_t n, bool own_memory) {
        constexpr const char* part = "batch";
        for (auto* a : {&ids, &mask, &document}) arena.give(*a, n, part);
        arena.give(positions, 3 * n, part);
        for (auto* a : {&host_document, &supervised}) arena.give_host(*a, n, part);
        arena.give_host(host_positions, 3 * n, part);
        arena.give(hidden, n * 3 * c.target_hidden_size, part);
        arena.give(target, n * c.target_hidden_size, part);
        if (own_memory) ahead.lay_out(arena, c, n);
    }

    /// The batch must have been checked, and memory laid out for as many rows.
    template <Device D>
    void assign(const D& device, const Batch& b) {
        batch = b.batch_size();
        tokens = b.tokens();
        copy(device, b.input_ids.as<std::int64_t>(), ids);
        copy(device, b.attention_mask.as<std::int64_t>(), mask);
        host_document.assign(static_cast<std::size_t>(rows()), 0);
        if (b.document) std::ranges::copy(b.document->as<std::int64_t>(), host_document.begin());
        copy(device, host_document, document);
        leading_keys = attends_to_first(b.attention_mask.as<std::int64_t>());
        if (b.position_ids) {
            const auto given = b.position_ids->as<std::int64_t>();
            host_positions.resize(given.size());
            std::ranges::copy(given, host_positions.begin());
        } else {
            host_positions.resize(static_cast<std::size_t>(rows()));
            for (std::int64_t r = 0; r < rows(); ++r)
                host_positions[static_cast<std::size_t>(r)] = in_document(r);
        }
        copy(device, host_positions, positions);
        supervised.clear();
        const auto loss_mask = b.loss_mask.as<std::int64_t>();
        for (std::int64_t r = 0; r < rows(); ++r)
            if (loss_mask[static_cast<std::size_t>(r)]) supervised.push_back(r);
        hidden.resize(static_cast<std::size_t>(b.hidden_state.elements()));
        target.resize(static_cast<std::size_t>(b.target.elements()));
        ahead.give(device, b, hidden.data(), target.data());
    }

    std::int64_t last_position() const { return *std::ranges::max_element(host_positions); }

    /// Throws DataError that names the sample and the field for anything that does not fit.
    static void check(const Batch& b, const ModelConfig& c) {
        const auto B = b.batch_size(), n = b.tokens();
        const bool three = b.position_ids && b.position_ids->shape.rank() == 3;
        expect(b, "attention_mask", b.attention_mask, {B, n});
        expect(b, "loss_mask", b.loss_mask, {B, n});
        expect(b, "aux_hidden_state", b.hidden_state, {B, n, 3 * c.target_hidden_size});
        expect(b, "hidden_state", b.target, {B, n, c.target_hidden_size});
        if (b.position_ids)
            expect(b, "position_ids", *b.position_ids, three ? Shape{3, B, n} : Shape{B, n});
        for (const auto* t : {&b.hidden_state, &b.target})
            if (t->dtype != DType::F32 && t->dtype != DType::BF16)
                throw DataError("hidden states are " + std::string(name_of(t->dtype)), name(b),
                                "Store features as float32 or bfloat16");
        range(b, "input_ids", b.input_ids, c.vocab_size,
              "Use the vocabulary map and config of this target");
        range(b, "loss_mask", b.loss_mask, 2, "A loss mask holds 0 and 1");
        range(b, "attention_mask", b.attention_mask, 2, "An attention mask holds 0 and 1");
        if (b.position_ids)
            range(b, "position_ids", *b.position_ids, c.max_position_embeddings,
                  "Raise max_position_embeddings in the draft config");
        if (b.document) check_documents(b);
    }

private:
    bool attends_to_first(std::span<const std::int64_t> attended) const {
        for (std::int64_t r = 0; r < rows(); ++r) {
            const auto at = static_cast<std::size_t>(r);
            if (host_document[at] != 0 || (attended[at] && r % tokens > 0 && !attended[at - 1]))
                return false;
            if (r % tokens == 0 && !attended[at]) return false;
        }
        return true;
    }

    /// Each row of a document names its first row: that of the row before, or itself.
    static void check_documents(const Batch& b) {
        const auto n = b.tokens();
        expect(b, "document", *b.document, {b.batch_size(), n});
        const auto starts = b.document->as<std::int64_t>();
        for (std::int64_t r = 0; r < b.batch_size() * n; ++r) {
            const auto at = static_cast<std::size_t>(r);
            if (starts[at] != r % n && (r % n == 0 || starts[at] != starts[at - 1]))
                throw DataError("document holds " + std::to_string(starts[at]) + " at row " +
                                    std::to_string(r % n),
                                name(b), "A document starts at its own row or goes on");
        }
    }

    template <Device D>
    static void copy(const D& device, std::span<const std::int64_t> from,
                     ArenaArray<std::int64_t>& to) {
        to.resize(from.size());
        upload(device, from, to.data());
    }

    static std::string name(const Batch& b) {
        std::string s = "batch";
        for (const auto& id : b.sample_ids) s += " " + id;
        return s;
    }

    static void expect(const Batch& b, const char* field, const TensorView& t, const Shape& want) {
        if (!(t.shape == want))
            throw DataError(
                std::string(field) + " has shape " + t.shape.text() + ", expected " + want.text(),
                name(b), "The features and the draft config must come from the same target model");
    }

    static void range(const Batch& b, const char* field, const TensorView& t, std::int64_t end,
                      const char* remedy) {
        for (auto v : t.as<std::int64_t>())
            if (v < 0 || v >= end)
                throw DataError(std::string(field) + " holds " + std::to_string(v) +
                                    ", outside [0, " + std::to_string(end) + ")",
                                name(b), remedy);
    }
};

}  // namespace eyas
