#pragma once
#include "checkpoints.hpp"
#include "command.hpp"
#include "eyas/checkpoint/export.hpp"
#include "eyas/model/frozen_target.hpp"

namespace eyas::cli {

class ExportCommand : public Command {
public:
    explicit ExportCommand(CLI::App& parent)
        : Command(parent, "export", "write a checkpoint as a directory that serving engines load") {
        app_.add_option("--checkpoint", checkpoint_,
                        "checkpoint directory, or a run directory (its newest)")
            ->required();
        app_.add_option("--out", out_,
                        "directory to write: model.safetensors (bfloat16) and config.json")
            ->required();
        app_.add_option("--layout", layout_,
                        "sglang (the draft alone) or hf (with the target's embedding)")
            ->capture_default_str()
            ->check(CLI::IsMember({"sglang", "hf"}));
        app_.add_option("--target", target_, "Hugging Face directory of the target; needed for hf");
    }

private:
    OrderedJson run() override {
        const auto dir = newest_checkpoint(checkpoint_);
        ExportOptions options;
        std::optional<HfWeights> weights;
        if (layout_ == "hf") {
            if (target_.empty())
                throw ContractError("--target is missing", "export --layout hf",
                                    "Name the target, whose embedding goes into the directory");
            weights.emplace(target_);
            options.layout = ExportLayout::HuggingFace;
            options.embedding = FrozenTarget::of(*weights).embed_tokens;
        }
        export_checkpoint(out_, dir, options);
        const auto size =
            std::filesystem::file_size(std::filesystem::path(out_) / "model.safetensors");
        std::printf("%s: %s layout of %s, %s\n", out_.c_str(), layout_.c_str(), dir.c_str(),
                    bytes_text(static_cast<double>(size)).c_str());
        return {{"out", out_}, {"layout", layout_}, {"checkpoint", dir.string()}, {"bytes", size}};
    }

    std::string checkpoint_, out_, layout_ = "sglang", target_;
};

}  // namespace eyas::cli
