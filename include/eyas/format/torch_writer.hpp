#pragma once
#include <filesystem>
#include <span>
#include <string>

#include "eyas/core/file.hpp"
#include "eyas/format/pickle_value.hpp"
#include "eyas/format/pickle_writer.hpp"
#include "eyas/format/zip_writer.hpp"

namespace eyas {

struct TorchWriteOptions {
    bool durable = true;             // sync the file and its directory
    std::string folder = "archive";  // name of the zip's root folder
};

namespace detail {
inline void write_torch_archive(AtomicFile& file, const PickleValue& root,
                                const std::string& folder) {
    PickleWriter pickle;
    const auto data = pickle.write(root);
    ZipWriter zip(file);
    zip.add(folder + "/data.pkl", data);
    zip.add(folder + "/byteorder", "little");
    for (std::size_t i = 0; i < pickle.storages().size(); ++i)
        zip.add(folder + "/data/" + std::to_string(i), pickle.storages()[i].bytes());
    zip.add(folder + "/version", "3\n");
    zip.finish();
}

inline PickleValue flat_dict(std::span<const NamedTensor> tensors) {
    PickleDict root;
    for (const auto& t : tensors) root.set(t.name, t.tensor);
    return root;
}
}  // namespace detail

/// Writes what torch.load(path, weights_only=True) reads as `root`, atomically. Tensors are
/// streamed from their views, each into its own storage at a multiple of 64 bytes.
inline void write_torch_file(const std::filesystem::path& path, const PickleValue& root,
                             const TorchWriteOptions& options = {}) {
    AtomicFile file(path, options.durable);
    detail::write_torch_archive(file, root, options.folder);
    file.commit();
}

/// A flat dict of tensors in the order given.
inline void write_torch_file(const std::filesystem::path& path,
                             std::span<const NamedTensor> tensors,
                             const TorchWriteOptions& options = {}) {
    write_torch_file(path, detail::flat_dict(tensors), options);
}

/// The same into a file that the caller commits.
inline void write_torch_file(AtomicFile& file, std::span<const NamedTensor> tensors) {
    detail::write_torch_archive(file, detail::flat_dict(tensors), "archive");
}

}  // namespace eyas
