#pragma once
#include <filesystem>
#include <string>

#include "eyas/capture/capture_identity.hpp"
#include "eyas/capture/feature_file.hpp"
#include "eyas/capture/target_model.hpp"

namespace eyas {

/// How features that are captured of this model now are captured.
template <Device D>
CaptureConvention capture_convention(const TargetModel<D>& model, const TargetNames& names) {
    return {.target_id = names.id,
            .target = model.fingerprint(),
            .layers = {model.captured_layers().begin(), model.captured_layers().end()},
            .tokenizer = names.tokenizer,
            .vocab_size = model.config().vocab_size,
            .hidden_size = model.config().hidden_size,
            .dtype = std::string(name_of(DType::BF16))};
}

/// Makes a directory one of features that are captured so. Throws ContractError where it holds
/// features of another target, of other layers or of unknown origin.
inline void claim_capture_directory(const CaptureConvention& mine,
                                    const std::filesystem::path& out) {
    if (!std::filesystem::exists(capture_file(out))) {
        if (std::filesystem::exists(feature_file(out, 0)))
            throw ContractError("holds features of unknown origin", out.string(),
                                "Write to another directory");
        eyas::create_directories(out);
        write_capture_identity(out, mine);
    } else if (const auto d = difference(read_capture_identity(out), mine)) {
        throw ContractError(
            "holds features of another target model or of other layers: " + *d + " (there, now)",
            out.string(), "Remove it, or write to another directory");
    }
}

/// EAGLE3 reads three layers. Throws ContractError where the model captures another number.
template <Device D>
void require_three_layers(const TargetModel<D>& model) {
    if (model.captured_layers().size() != 3)
        throw ContractError(std::to_string(model.captured_layers().size()) + " layers",
                            "capture layers", "EAGLE3 features hold three captured layers");
}

}  // namespace eyas
