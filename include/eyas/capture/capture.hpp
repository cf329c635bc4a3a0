#pragma once
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "eyas/capture/capture_identity.hpp"
#include "eyas/capture/conversations.hpp"
#include "eyas/capture/target_model.hpp"
#include "eyas/core/convert.hpp"
#include "eyas/core/file.hpp"
#include "eyas/format/torch_file.hpp"
#include "eyas/ingest/capture_done.hpp"
#include "eyas/sample/feature_layout.hpp"

namespace eyas {

struct CaptureReport {
    std::int64_t conversations = 0;  // in all
    std::int64_t captured = 0;       // written by this run
    std::int64_t reused = 0;         // found complete
    std::int64_t tokens = 0;         // of the captured ones
    double seconds = 0;
    bool stopped = false;  // the stop flag ended it early; run it again to go on
};

struct CaptureOptions {
    /// Conversations are packed up to this many tokens a forward: large enough for efficient matrix
    /// products, small enough to save often. A longer conversation is a pack of its own.
    std::int64_t pack_tokens = 2048;
    /// Written down beside the features: target_names() of the target's directory.
    TargetNames target = {};
    /// Called on the capturing thread after every pack.
    std::function<void(const CaptureReport&)> on_progress = {};
    /// Looked at between packs; what is written by then stays. Set it from another thread, which
    /// may wait for signals; a handler must not run on a thread that multiplies matrices (oneDNN's
    /// kernels may not stand on a real stack then).
    const std::atomic<bool>* stop = nullptr;
};

/// Where conversation `index` goes, 2000 to a folder: OUT/rows_0-2000/data_17.ckpt.
/// Source: SpecForge's offline preparation.
inline std::filesystem::path feature_file(const std::filesystem::path& out, std::int64_t index) {
    constexpr std::int64_t per_folder = 2000;
    const auto first = index / per_folder * per_folder;
    return out / ("rows_" + std::to_string(first) + "-" + std::to_string(first + per_folder)) /
           ("data_" + std::to_string(index) + ".ckpt");
}

namespace detail {

/// Whether `file` holds the complete features of `c` from a target of width `width`. Damaged and
/// foreign files are "no": they are captured again.
inline bool holds_features_of(const std::filesystem::path& file, const Conversation& c,
                              std::int64_t width) {
    if (!std::filesystem::exists(file)) return false;
    try {
        const TorchFile f(file);
        std::vector<FeatureSpec> specs;
        for (const auto& t : f.tensors()) specs.push_back(spec_of(t));
        const auto layout = feature_layout(specs, file.string());
        return layout.width == width && layout.dtype == DType::BF16 &&
               std::ranges::equal(f.at(feature::input_ids).as<std::int64_t>(), c.input_ids) &&
               std::ranges::equal(f.at(feature::loss_mask).as<std::int64_t>(), c.loss_mask);
    } catch (const DataError&) {
        return false;
    }
}

/// Rows [first, first + rows) of fp32 states [N, width] as bfloat16 [1, rows, width].
inline Tensor narrowed_rows(const Tensor& states, std::int64_t first, std::int64_t rows) {
    const auto width = states.shape()[1];
    Tensor out(DType::BF16, {1, rows, width});
    const auto offset = static_cast<std::size_t>(first * width) * size_of(DType::F32);
    convert_into(TensorView{states.view().data + offset, DType::F32, {rows, width}},
                 out.mutable_view());
    return out;
}

inline TensorView token_row(const std::vector<std::int64_t>& values) {
    return {reinterpret_cast<const std::byte*>(values.data()),
            DType::I64,
            {static_cast<std::int64_t>(values.size())}};
}

}  // namespace detail

/// Writes reference-format feature files of conversations: one .ckpt each with input_ids [T],
/// loss_mask [T], aux_hidden_state [1, T, 3D] and hidden_state [1, T, D], states rounded to
/// bfloat16, no pad rows. Files appear complete or not at all; a second run over the same directory
/// writes only what is missing or damaged. CAPTURE.done appears after the last file. One thread
/// calls run(); `model` is borrowed.
template <Device D>
class FeatureCapture {
public:
    /// Throws ContractError where the model does not capture three layers, or `out` holds features
    /// of another target, of other layers or of unknown origin.
    FeatureCapture(TargetModel<D>& model, std::filesystem::path out, CaptureOptions options = {})
        : model_(model), out_(std::move(out)), options_(std::move(options)) {
        if (model_.captured_layers().size() != 3)
            throw ContractError(std::to_string(model_.captured_layers().size()) + " layers",
                                "capture layers", "EAGLE3 features hold three captured layers");
        claim_directory();
    }

    /// Captures conversation i into feature_file(out, i). Throws what the model's forward throws,
    /// and ResourceError when the disk is full; files that are complete by then stay.
    CaptureReport run(std::span<const Conversation> conversations) {
        const auto count = static_cast<std::int64_t>(conversations.size());
        if (std::filesystem::exists(feature_file(out_, count)))
            throw ContractError("holds more than these " + std::to_string(count) + " conversations",
                                out_.string(), "Remove it, or write to another directory");
        std::filesystem::remove(capture_done_file(out_));
        started_ = std::chrono::steady_clock::now();
        report_ = {};
        report_.conversations = count;
        pack_.clear();
        pack_tokens_ = 0;
        for (std::int64_t i = 0; i < count && !stopped(); ++i) {
            const auto& c = conversations[static_cast<std::size_t>(i)];
            if (detail::holds_features_of(feature_file(out_, i), c, model_.config().hidden_size)) {
                ++report_.reused;
                continue;
            }
            if (!pack_.empty() && pack_tokens_ + c.tokens() > options_.pack_tokens)
                capture_pack(conversations);
            pack_.push_back(i);
            pack_tokens_ += c.tokens();
        }
        if (!stopped()) capture_pack(conversations);
        report_.stopped = report_.captured + report_.reused < count;
        if (!report_.stopped) write_capture_done(out_, count);
        return report_;
    }

private:
    bool stopped() const { return options_.stop && options_.stop->load(); }

    CaptureConvention convention() const {
        return {.target_id = options_.target.id,
                .target = model_.fingerprint(),
                .layers = {model_.captured_layers().begin(), model_.captured_layers().end()},
                .tokenizer = options_.target.tokenizer,
                .vocab_size = model_.config().vocab_size,
                .hidden_size = model_.config().hidden_size,
                .dtype = std::string(name_of(DType::BF16))};
    }

    void claim_directory() {
        const auto mine = convention();
        if (!std::filesystem::exists(capture_file(out_))) {
            if (std::filesystem::exists(feature_file(out_, 0)))
                throw ContractError("holds features of unknown origin", out_.string(),
                                    "Write to another directory");
            eyas::create_directories(out_);
            write_capture_identity(out_, mine);
        } else if (const auto d = difference(read_capture_identity(out_), mine)) {
            throw ContractError("holds features of another target model or of other layers: " + *d +
                                    " (there, now)",
                                out_.string(), "Remove it, or write to another directory");
        }
    }

    void capture_pack(std::span<const Conversation> conversations) {
        std::vector<std::int64_t> ids, lengths;
        for (auto i : pack_) {
            const auto& c = conversations[static_cast<std::size_t>(i)];
            ids.insert(ids.end(), c.input_ids.begin(), c.input_ids.end());
            lengths.push_back(c.tokens());
        }
        const auto states = model_.forward(ids, lengths);
        std::int64_t row = 0;
        for (auto i : pack_) {
            const auto& c = conversations[static_cast<std::size_t>(i)];
            write(feature_file(out_, i), c, states, row);
            row += c.tokens();
            ++report_.captured;
        }
        report_.tokens += row;
        report_.seconds =
            std::chrono::duration<double>(std::chrono::steady_clock::now() - started_).count();
        pack_.clear();
        pack_tokens_ = 0;
        if (options_.on_progress) options_.on_progress(report_);
    }

    void write(const std::filesystem::path& file, const Conversation& c, const TargetStates& states,
               std::int64_t row) const {
        const auto aux = detail::narrowed_rows(states.captured, row, c.tokens());
        const auto last = detail::narrowed_rows(states.last, row, c.tokens());
        const NamedTensor tensors[] = {
            {std::string(feature::input_ids), detail::token_row(c.input_ids)},
            {std::string(feature::loss_mask), detail::token_row(c.loss_mask)},
            {std::string(feature::aux_hidden_state), aux.view()},
            {std::string(feature::hidden_state), last.view()}};
        eyas::create_directories(file.parent_path());
        write_torch_file(file, tensors);
    }

    TargetModel<D>& model_;
    std::filesystem::path out_;
    CaptureOptions options_;
    std::chrono::steady_clock::time_point started_;
    CaptureReport report_;
    std::vector<std::int64_t> pack_;  // indices of conversations that the next forward takes
    std::int64_t pack_tokens_ = 0;
};

}  // namespace eyas
