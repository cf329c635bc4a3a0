#pragma once
#include "command.hpp"
#include "eyas/capture/capture.hpp"
#include "eyas/device/cpu.hpp"
#include "target_precision.hpp"

namespace eyas::cli {

class CaptureCommand : public Command {
public:
    explicit CaptureCommand(CLI::App& parent)
        : Command(parent, "capture",
                  "run the target model over conversations and write its hidden states as .ckpt "
                  "files") {
        app_.add_option("--model", model_,
                        "Hugging Face directory of the target (config.json, model.safetensors)")
            ->required();
        app_.add_option("--conversations", conversations_,
                        "JSON lines {\"input_ids\": [...], \"loss_mask\": [...]}")
            ->required();
        app_.add_option("--out", out_, "directory for the feature files; complete ones are kept")
            ->required();
        app_.add_option("--max-len", limits_.max_len, "cut conversations to so many tokens")
            ->check(CLI::PositiveNumber);
        app_.add_option("--layers", layers_,
                        "three layers to capture, counted from 0 (default 1,N/2-1,N-4)")
            ->delimiter(',');
        app_.add_option("--pack-tokens", options_.pack_tokens, "tokens a forward")
            ->capture_default_str()
            ->check(CLI::PositiveNumber);
        precision_.declare(app_);
    }

private:
    OrderedJson run() override {
        // Before all that takes time: it may be of an earlier capture of fewer conversations, and
        // who takes files while they come would believe it.
        if (std::filesystem::exists(capture_done_file(out_))) {
            const auto mine = lock_capture_directory(out_);
            std::filesystem::remove(capture_done_file(out_));
        }
        const HfWeights weights(model_);
        limits_.vocab_size = weights.config().vocab_size;
        limits_.positions = longest_sequence(weights.config());
        if (!layers_.empty()) require_three_layers(layers_);
        const auto conversations = read_conversations(conversations_, limits_);
        return precision_.with([&]<class P>(P) {
            TargetModel<Cpu, P> model(weights, {layers_, false});
            return capture(model, target_names(weights), conversations);
        });
    }

    template <class P>
    OrderedJson capture(TargetModel<Cpu, P>& model, const TargetNames& target,
                        const std::vector<Conversation>& conversations) {
        Progress progress("capture", static_cast<std::int64_t>(conversations.size()));
        options_.stop = &stop_requested();
        options_.target = target;
        options_.on_progress = [&](const CaptureReport& r) {
            progress.show(r.captured + r.reused,
                          "  " +
                              std::to_string(static_cast<long>(static_cast<double>(r.tokens) /
                                                               std::max(r.seconds, 1e-9))) +
                              " tokens/s");
        };
        FeatureCapture<Cpu, P> capture(model, out_, options_);
        const auto r = capture.run(conversations);
        const double rate = r.seconds > 0 ? static_cast<double>(r.tokens) / r.seconds : 0;
        std::printf(
            "%lld conversations: %lld captured (%lld tokens in %s, %.0f tokens/s), %lld were "
            "there%s\n",
            static_cast<long long>(r.conversations), static_cast<long long>(r.captured),
            static_cast<long long>(r.tokens), duration_text(r.seconds).c_str(), rate,
            static_cast<long long>(r.reused),
            r.stopped ? "; stopped early, run it again to go on" : "");
        return {{"out", out_},
                {"conversations", r.conversations},
                {"captured", r.captured},
                {"reused", r.reused},
                {"tokens", r.tokens},
                {"seconds", r.seconds},
                {"tokens_per_second", rate}};
    }

    std::string model_, conversations_, out_;
    std::vector<std::int64_t> layers_;
    ConversationLimits limits_;
    CaptureOptions options_;
    TargetPrecision precision_;
};

}  // namespace eyas::cli
