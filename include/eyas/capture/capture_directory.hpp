#pragma once
#include <filesystem>

#include "eyas/capture/capture_identity.hpp"
#include "eyas/capture/feature_file.hpp"
#include "eyas/capture/target_model.hpp"

namespace eyas {

template <Device D>
CaptureIdentity capture_identity_of(const TargetModel<D>& model) {
    return {model.fingerprint(), {model.captured_layers().begin(), model.captured_layers().end()}};
}

/// Makes `file` say whose features lie at `where`. Throws ContractError where it says another.
inline void claim_capture_identity(const std::filesystem::path& file, const CaptureIdentity& mine,
                                   const std::filesystem::path& where) {
    if (!std::filesystem::exists(file))
        write_capture_identity(file, mine);
    else if (read_capture_identity(file) != mine)
        throw ContractError("holds features of another target model or of other layers",
                            where.string(), "Remove it, or write to another directory");
}

/// Makes a directory one of features of this model and these layers. Throws ContractError where it
/// holds features of another target, of other layers or of unknown origin.
template <Device D>
void claim_capture_directory(const TargetModel<D>& model, const std::filesystem::path& out) {
    const auto file = capture_identity_file(out);
    if (!std::filesystem::exists(file) && std::filesystem::exists(feature_file(out, 0)))
        throw ContractError("holds features of unknown origin", out.string(),
                            "Write to another directory");
    eyas::create_directories(out);
    claim_capture_identity(file, capture_identity_of(model), out);
}

/// EAGLE3 reads three layers. Throws ContractError where the model captures another number.
template <Device D>
void require_three_layers(const TargetModel<D>& model) {
    if (model.captured_layers().size() != 3)
        throw ContractError(std::to_string(model.captured_layers().size()) + " layers",
                            "capture layers", "EAGLE3 features hold three captured layers");
}

}  // namespace eyas
