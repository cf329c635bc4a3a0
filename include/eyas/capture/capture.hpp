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

#include "eyas/capture/capture_directory.hpp"
#include "eyas/capture/conversations.hpp"
#include "eyas/capture/feature_file.hpp"
#include "eyas/capture/target_model.hpp"
#include "eyas/core/file.hpp"
#include "eyas/ingest/capture_done.hpp"

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

/// Writes reference-format feature files of conversations: one .ckpt each with input_ids [T],
/// loss_mask [T], aux_hidden_state [1, T, 3D] and hidden_state [1, T, D], states rounded to
/// bfloat16, no pad rows. Files appear complete or not at all; a second run over the same directory
/// writes only what is missing or damaged. CAPTURE.done appears after the last file. One thread
/// calls run(); `model` is borrowed.
template <Device D, PrecisionPolicy P = F32>
class FeatureCapture {
public:
    /// Throws ContractError where the model does not capture three layers, or `out` holds features
    /// of another target, of other layers, in another precision or of unknown origin; ResourceError
    /// where another capture or rollout writes into it.
    FeatureCapture(TargetModel<D, P>& model, std::filesystem::path out, CaptureOptions options = {})
        : model_(model),
          out_(std::move(out)),
          options_(std::move(options)),
          lock_(claim_capture_directory(model_, options_.target, out_)) {}

    /// Captures conversation i into feature_file(out, i). Throws what the model's forward throws,
    /// ContractError where `out` has files of more conversations, and ResourceError when the disk
    /// is full; files that are complete by then stay.
    CaptureReport run(std::span<const Conversation> conversations) {
        const auto count = static_cast<std::int64_t>(conversations.size());
        detail::require_features_below(out_, count, "conversations'");
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
            write_feature_file(feature_file(out_, i), c,
                               detail::narrowed_rows(states.captured, row, c.tokens()),
                               detail::narrowed_rows(states.last, row, c.tokens()));
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

    TargetModel<D, P>& model_;
    std::filesystem::path out_;
    CaptureOptions options_;
    detail::DirectoryLock lock_;
    std::chrono::steady_clock::time_point started_;
    CaptureReport report_;
    std::vector<std::int64_t> pack_;  // indices of conversations that the next forward takes
    std::int64_t pack_tokens_ = 0;
};

}  // namespace eyas
