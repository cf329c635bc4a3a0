#pragma once
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

#include "eyas/capture/capture_identity.hpp"
#include "eyas/capture/feature_file.hpp"
#include "eyas/capture/target_model.hpp"
#include "eyas/core/directory_lock.hpp"
#include "eyas/ingest/scan.hpp"

namespace eyas {

/// How features that are captured of this model now are captured.
template <Device D, PrecisionPolicy P>
CaptureConvention capture_convention(const TargetModel<D, P>& model, const TargetNames& names) {
    return {.target_id = names.id,
            .target = model.fingerprint(),
            .layers = {model.captured_layers().begin(), model.captured_layers().end()},
            .tokenizer = names.tokenizer,
            .vocab_size = model.config().vocab_size,
            .hidden_size = model.config().hidden_size,
            .dtype = std::string(name_of(DType::BF16)),
            .precision = std::string(P::name)};
}

/// EAGLE3 reads three layers. Throws ContractError for another number.
inline void require_three_layers(std::span<const std::int64_t> layers) {
    if (layers.size() != 3)
        throw ContractError(std::to_string(layers.size()) + " layers", "capture layers",
                            "EAGLE3 features hold three captured layers");
}
/// The same, of those that the model captures.
template <Device D, PrecisionPolicy P>
void require_three_layers(const TargetModel<D, P>& model) {
    require_three_layers(model.captured_layers());
}

/// Keeps a second capture or rollout out of a directory of features, which is created where it is
/// missing. Throws ResourceError where there is one already.
inline detail::DirectoryLock lock_capture_directory(const std::filesystem::path& out) {
    return {out, "another capture or rollout is writing features here",
            "Let it end or stop it, or write to another directory"};
}

/// Makes a directory one of features that are captured of this model now; nobody else writes into
/// it while the result lives. Throws ContractError where it holds features of another target, of
/// other layers, in another precision or of unknown origin, or the model does not capture three
/// layers; and what lock_capture_directory() does.
template <Device D, PrecisionPolicy P>
[[nodiscard]] detail::DirectoryLock claim_capture_directory(const TargetModel<D, P>& model,
                                                            const TargetNames& names,
                                                            const std::filesystem::path& out) {
    require_three_layers(model);
    const auto mine = capture_convention(model, names);
    auto lock = lock_capture_directory(out);
    if (!std::filesystem::exists(capture_file(out))) {
        if (std::filesystem::exists(feature_file(out, 0)))
            throw ContractError("holds features of unknown origin", out.string(),
                                "Write to another directory");
        write_capture_identity(out, mine);
    } else if (const auto d = difference(read_capture_identity(out), mine)) {
        throw ContractError(
            "holds features of another target model, of other layers or in another precision: " +
                *d + " (there, now)",
            out.string(), "Remove it, or write to another directory");
    }
    return lock;
}

namespace detail {
/// Throws ContractError where `out` has files of more features than of so many of `what`, as an
/// earlier capture or rollout of a longer list leaves them; there may be gaps.
inline void require_features_below(const std::filesystem::path& out, std::int64_t count,
                                   const std::string& what) {
    for (const auto& file : feature_files_so_far(out))
        if (feature_index(file).value_or(-1) >= count)
            throw ContractError("holds more than these " + std::to_string(count) + " " + what +
                                    " features: " + file.filename().string(),
                                out.string(), "Remove it, or write to another directory");
}
}  // namespace detail

}  // namespace eyas
