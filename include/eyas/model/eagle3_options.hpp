#pragma once
#include <cstdint>
#include <string>

#include "eyas/core/error.hpp"
#include "eyas/core/json.hpp"

namespace eyas {

/// What the heads minimise. CrossEntropy: the distillation cross-entropy. LkAlpha: minus the mean
/// log acceptance. LkLambda: cross-entropy and 1 - acceptance mixed by a weight that falls as
/// acceptance rises. Source: SpecForge's LK losses.
enum class LossType { CrossEntropy, LkAlpha, LkLambda };

/// What a step keeps of its activations for the backward. Recompute: only what enters attention and
/// the next step; the rest is computed again, to the same bits: more time, less memory a TTT step.
enum class Activations { Keep, Recompute };

/// How an EAGLE3 draft is unrolled and scored (not what it consists of: that is ModelConfig).
struct Eagle3Options {
    static constexpr std::int64_t longest_ttt = 16;

    std::int64_t ttt_length = 7;  // K, 1 to longest_ttt
    double loss_decay = 0.8;      // weight of step k is loss_decay^k
    LossType loss = LossType::CrossEntropy;
    Activations activations = Activations::Keep;  // changes no result, so a run may change it
    /// Also keep the weights of linear layers as the device's products read them fastest (on the
    /// CPU, blocks): 4 bytes a parameter more; results differ in rounding.
    bool packed_weights = true;
    /// On a device that records work (RecordingDevice): record a step's forward and most of its
    /// backward once for each shape of batches, and replay them. Changes no bit.
    bool replay_steps = false;
    double kl_scale = 1.0,
           kl_decay = 1.0;  // LkLambda: weight = kl_scale * exp(-kl_decay * acceptance)
};

/// "ce", "alpha", "lambda" as on the command line and in the reference's lk_loss_type.
inline LossType loss_type_from_name(const std::string& name) {
    if (name == "ce") return LossType::CrossEntropy;
    if (name == "alpha") return LossType::LkAlpha;
    if (name == "lambda") return LossType::LkLambda;
    throw ContractError("unknown loss '" + name + "'", "loss type", "Use ce, alpha or lambda");
}
inline std::string name_of(LossType t) {
    return t == LossType::CrossEntropy ? "ce" : t == LossType::LkAlpha ? "alpha" : "lambda";
}

inline void to_json(Json& j, const Eagle3Options& o) {
    j = Json{{"ttt_length", o.ttt_length},
             {"loss_decay", o.loss_decay},
             {"loss", name_of(o.loss)},
             {"kl_scale", o.kl_scale},
             {"kl_decay", o.kl_decay}};
}

}  // namespace eyas
