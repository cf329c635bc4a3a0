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

/// Writes what torch.load(path, weights_only=True) reads as `root`, atomically. Tensors are
/// streamed from their views, each into its own storage at a multiple of 64 bytes.
inline void write_torch_file(const std::filesystem::path& path, const PickleValue& root,
                             const TorchWriteOptions& options = {}) {
    PickleWriter pickle;
    const auto data = pickle.write(root);
    AtomicFile file(path, options.durable);
    ZipWriter zip(file);
    zip.add(options.folder + "/data.pkl", data);
    zip.add(options.folder + "/byteorder", "little");
    for (std::size_t i = 0; i < pickle.storages().size(); ++i)
        zip.add(options.folder + "/data/" + std::to_string(i), pickle.storages()[i].bytes());
    zip.add(options.folder + "/version", "3\n");
    zip.finish();
    file.commit();
}

/// A flat dict of tensors in the order given.
inline void write_torch_file(const std::filesystem::path& path,
                             std::span<const NamedTensor> tensors,
                             const TorchWriteOptions& options = {}) {
    PickleDict root;
    for (const auto& t : tensors) root.set(t.name, t.tensor);
    write_torch_file(path, PickleValue(std::move(root)), options);
}

}  // namespace eyas
