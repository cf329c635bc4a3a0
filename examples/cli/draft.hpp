#pragma once
#include <CLI/CLI.hpp>
#include <cstddef>
#include <optional>
#include <string>

#include "eyas/checkpoint/draft_weights.hpp"
#include "eyas/format/hf_weights.hpp"
#include "eyas/sample/vocab_map_build.hpp"
#include "eyas/sample/vocab_map_io.hpp"
#include "eyas/trainer/memory_plan.hpp"
#include "model_kind.hpp"

namespace eyas::cli {

/// Options that say which draft is trained or evaluated, and how it is unrolled.
struct DraftArguments {
    std::string target, config, vocab_map, device = "cpu", precision = "float32", loss = "ce",
                                           activations = "keep";
    Eagle3Options model;
    std::uint64_t seed = 0;
    std::string attention = "strips";
    std::size_t attention_workspace = 0;
    int gpu = 0;  // which, of device cuda

    /// `whole` false: config and map may also come from a checkpoint.
    void declare(CLI::App& app, bool whole) {
        app.add_option("--target", target,
                       "Hugging Face directory of the target: its embedding and head are read")
            ->required();
        app.add_option("--draft-config", config, "config.json of the draft")->required(whole);
        app.add_option(
            "--vocab-map", vocab_map,
            "d2t and t2d, from eyas vocab-map; not needed where the draft speaks all tokens");
        app.add_option("--ttt-length", model.ttt_length, "K, steps of the training-time test")
            ->capture_default_str()
            ->check(CLI::Range(1, 16));
        app.add_option("--loss-decay", model.loss_decay,
                       "weight of TTT step k is this to the power k")
            ->capture_default_str();
        app.add_option("--loss", loss, "ce, alpha or lambda (the LK losses)")
            ->capture_default_str()
            ->check(CLI::IsMember({"ce", "alpha", "lambda"}));
        app.add_option("--kl-scale", model.kl_scale, "of --loss lambda")->capture_default_str();
        app.add_option("--kl-decay", model.kl_decay, "of --loss lambda")->capture_default_str();
        app.add_option("--activations", activations,
                       "keep, or recompute: the same bits in less memory and more time")
            ->capture_default_str()
            ->check(CLI::IsMember({"keep", "recompute"}));
        app.add_flag("!--no-packed-weights", model.packed_weights,
                     "do not keep weights as products read them fastest besides: 4 bytes a "
                     "parameter less, more time, other rounding");
        app.add_option("--precision", precision, "float32 or bfloat16")
            ->capture_default_str()
            ->check(CLI::IsMember({"float32", "bfloat16"}));
        app.add_option("--device", device,
                       "cpu, or cuda: the first GPU that CUDA shows, or of several processes a GPU "
                       "each: the one that LOCAL_RANK numbers")
            ->capture_default_str()
            ->check(CLI::IsMember({"cpu", "cuda"}));
        app.add_option("--attention", attention,
                       "strips: own kernels, which round as the reference does; or cudnn: bfloat16 "
                       "on a GPU, scores in fp32, a sample a row")
            ->capture_default_str()
            ->check(CLI::IsMember({"strips", "cudnn"}));
        app.add_option("--attention-workspace", attention_workspace,
                       "bytes of the GPU that --attention cudnn may take for a call; shapes for "
                       "which it wants more are left to own kernels; 0: 1 GiB")
            ->capture_default_str();
        app.add_option("--seed", seed, "initial weights and order of samples")
            ->capture_default_str();
    }

    /// Throws ContractError for options that do not go together, or that this program lacks.
    void check() const {
        require_attention(attention, device, precision);
        if (attention_workspace > 0 && attention != "cudnn")
            throw ContractError("own kernels take no such workspace",
                                "--attention-workspace with --attention " + attention,
                                "Leave out --attention-workspace, or add --attention cudnn");
        if (model.replay_steps && device != "cuda")
            throw ContractError("the device records no work",
                                "--cuda-graphs with --device " + device,
                                "Leave out --cuda-graphs, or use --device cuda");
    }

    /// The map given, else that of the draft in `weights`, else every token.
    VocabMap map_for(const ModelConfig& c, const std::string& weights = "") const {
        if (vocab_map.empty() && !weights.empty())
            return DraftWeights(weights).vocab_map(c.vocab_size, c.draft_vocab_size);
        auto map = vocab_map.empty() ? identity_vocab_map(c.vocab_size) : load_vocab_map(vocab_map);
        check_vocab_map(map, c.vocab_size, c.draft_vocab_size,
                        vocab_map.empty() ? "draft config without --vocab-map" : vocab_map);
        return map;
    }

    /// Of training this draft on batches of up to `rows` rows, as rank `rank` of `world`.
    MemoryPlan memory_plan(const ModelConfig& c, std::int64_t rows, std::uint64_t ring_bytes,
                           bool checkpoint_copy, std::int64_t rank, std::int64_t world) const {
        return with_model_kind(device, precision, [&]<class M>(ModelKind<M>) {
            return eyas::memory_plan<M>(c, options(), rows, ring_bytes, checkpoint_copy, rank,
                                        world, device_at<typename M::DeviceType>(gpu));
        });
    }

    /// Throws ContractError where the draft in `weights` has an embedding that is not the target's.
    void require_embedding(const std::string& weights) const {
        const HfWeights from(target);
        require_target_embedding(DraftWeights(weights), FrozenTarget::of(from).embed_tokens);
    }

    /// Builds the model on the device and in the precision asked for and calls f(model). Throws
    /// ResourceError where there is no such device.
    template <class F>
    auto with_model(const ModelConfig& c, const VocabMap& map, F&& f) const {
        return with_model_kind(device, precision, [&]<class M>(ModelKind<M>) {
            std::optional<M> m;
            {
                const auto on =
                    device_for<typename M::DeviceType>(gpu, attention, attention_workspace);
                const HfWeights weights(target);  // let go when the model has its copy
                m.emplace(c, options(), map, FrozenTarget::of(weights), seed, on);
            }
            return f(*m);
        });
    }

private:
    Eagle3Options options() const {
        auto o = model;
        o.loss = loss_type_from_name(loss);
        o.activations = activations == "keep" ? Activations::Keep : Activations::Recompute;
        return o;
    }
};

}  // namespace eyas::cli
