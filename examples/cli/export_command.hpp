#pragma once
#include <algorithm>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "checkpoints.hpp"
#include "command.hpp"
#include "eyas/checkpoint/export.hpp"
#include "eyas/device/cpu.hpp"
#include "eyas/device/precision.hpp"
#include "eyas/evaluate/verify_export.hpp"
#include "eyas/model/eagle3.hpp"
#include "verify_samples.hpp"

namespace eyas::cli {

class ExportCommand : public Command {
public:
    explicit ExportCommand(CLI::App& parent)
        : Command(parent, "export",
                  "write a checkpoint as a directory that serving engines load, or prove that one "
                  "is the checkpoint (--verify)") {
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
        app_.add_option("--target", target_,
                        "Hugging Face directory of the target; needed for hf and --verify");
        auto* verify =
            app_.add_flag("--verify", verify_,
                          "read --out as its users would and compare it with the checkpoint, every "
                          "weight, and the logits of samples (--store, --prompts, else random "
                          "states) in every bit; where it is there already, it is left as it is");
        samples_.declare(app_);
        app_.add_option("--write-logits", logits_,
                        "with --verify: a safetensors file for the samples and the export's "
                        "logits, for other programs (bench/peer/specforge_export.py)")
            ->needs(verify);
    }

private:
    OrderedJson run() override {
        const auto dir = newest_checkpoint(checkpoint_);
        std::optional<HfWeights> target;
        if (layout_ == "hf" || verify_) {
            if (target_.empty())
                throw ContractError("--target is missing",
                                    verify_ ? "export --verify" : "export --layout hf",
                                    "Name the target, whose embedding the draft works with");
            target.emplace(target_);
        }
        OrderedJson result{{"out", out_}, {"layout", layout_}, {"checkpoint", dir.string()}};
        if (!verify_ || nothing_there()) result["bytes"] = write(dir, target);
        if (verify_) result["checks"] = verify(dir, *target);
        return result;
    }

    bool nothing_there() const {
        namespace fs = std::filesystem;
        return !fs::exists(out_) || (fs::is_directory(out_) && fs::is_empty(out_));
    }

    std::uint64_t write(const std::filesystem::path& dir, const std::optional<HfWeights>& target) {
        ExportOptions options;
        if (layout_ == "hf") {
            options.layout = ExportLayout::HuggingFace;
            options.embedding = FrozenTarget::of(*target).embed_tokens;
        }
        export_checkpoint(out_, dir, options);
        const auto size =
            std::filesystem::file_size(std::filesystem::path(out_) / "model.safetensors");
        std::printf("%s: %s layout of %s, %s\n", out_.c_str(), layout_.c_str(), dir.c_str(),
                    bytes_text(static_cast<double>(size)).c_str());
        return size;
    }

    OrderedJson verify(const std::filesystem::path& dir, const HfWeights& target) const {
        using Model = Eagle3<Cpu, F32>;
        const ExportVerification v{
            out_,
            dir,
            target,
            {.ttt_length = ttt_length},
            layout_ == "hf" ? ExportLayout::HuggingFace : ExportLayout::Sglang};
        auto checks = verify_export_files(v);
        if (bad_target(checks)) return tell(checks);
        std::vector<NamedLogits> kept;
        const auto keep = [&](const Batch& b, const TensorView& logits) {
            if (!logits_.empty()) kept.emplace_back(b, logits);
        };
        samples_.each(read_draft_config(dir / "config.json"), target, [&](const auto& next) {
            checks.push_back(verify_export_logits<Model>(v, next, keep));
            checks.back().text += ", on " + samples_.source();
        });
        if (!logits_.empty()) write_logits(kept);
        return tell(checks);
    }

    /// Nothing can be compared then: other checks may be bad only for its sake.
    static bool bad_target(const std::vector<ExportCheck>& checks) {
        return std::ranges::any_of(
            checks, [](const ExportCheck& c) { return !c.good && c.name == "target"; });
    }

    /// A line for each; throws where one is bad.
    OrderedJson tell(const std::vector<ExportCheck>& checks) const {
        OrderedJson all = OrderedJson::array();
        std::string bad;
        for (const auto& c : checks) {
            std::printf("%-8s %s: %s\n", c.good ? "ok" : "DIFFERS", c.name.c_str(), c.text.c_str());
            all.push_back({{"name", c.name}, {"good", c.good}, {"text", c.text}});
            if (!c.good && (bad.empty() || c.name == "target")) bad = c.name + ": " + c.text;
        }
        if (bad_target(checks))
            throw DataError("is not the target of this checkpoint. " + bad, target_,
                            "Name the target that the draft was trained for");
        if (!bad.empty())
            throw DataError("is not an export of this checkpoint. " + bad, out_,
                            "Export it again into a new directory");
        return all;
    }

    static constexpr std::int64_t ttt_length = 2;  // the second step sees the first one's keys

    /// Copies: a batch is gone when the next comes.
    struct NamedLogits {
        NamedLogits(const Batch& b, const TensorView& of)
            : ids(copy(b.input_ids)), states(copy(b.hidden_state)), logits(copy(of)) {}
        static Tensor copy(const TensorView& v) {
            Tensor t(v.dtype, v.shape);
            convert_into(v, t.mutable_view());
            return t;
        }
        Tensor ids, states, logits;
    };

    void write_logits(const std::vector<NamedLogits>& kept) const {
        std::vector<NamedTensor> all;
        for (std::size_t i = 0; i < kept.size(); ++i) {
            const auto n = std::to_string(i);
            all.push_back({"input_ids." + n, kept[i].ids.view()});
            all.push_back({"aux_hidden_state." + n, kept[i].states.view()});
            all.push_back({"logits." + n, kept[i].logits.view()});
        }
        write_safetensors(logits_, all);
    }

    std::string checkpoint_, out_, layout_ = "sglang", target_, logits_;
    bool verify_ = false;
    VerifySamples samples_;
};

}  // namespace eyas::cli
