#pragma once
#include <filesystem>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "eyas/core/file.hpp"
#include "eyas/format/gzip.hpp"
#include "eyas/format/pickle_reader.hpp"
#include "eyas/format/pickle_tensor.hpp"
#include "eyas/format/pickle_value.hpp"
#include "eyas/format/torch_writer.hpp"
#include "eyas/format/zip_reader.hpp"

namespace eyas {

struct TorchFileOptions {
    bool verify_crc = true;  // compare each storage's CRC-32 when the file is opened
    // Leave that, where a tensor is a whole storage, to whoever reads the bytes: expected_crcs().
    bool crc_by_reader = false;
};

/// A file of torch.save (.ckpt, .pt), mapped, or a gzip of one (.ckpt.gz), decompressed into
/// memory. Nothing in it is run. Contiguous tensors are views of the mapping, strided ones are
/// copied once. Copies share everything; views live as long as any copy. Reading is thread-safe
/// once opened.
class TorchFile {
public:
    /// Throws DataError for anything but such a file (truncated, damaged, compressed entries, the
    /// format of torch before 1.6, objects that are no tensors or plain values).
    explicit TorchFile(const std::filesystem::path& path, TorchFileOptions options = {})
        : shared_(std::make_shared<Shared>(path, options)) {}

    const PickleValue& root() const { return shared_->root; }
    const std::filesystem::path& path() const { return shared_->file.path(); }
    std::span<const std::byte> bytes() const { return shared_->file.bytes(); }  // the whole file
    int descriptor() const { return shared_->file.descriptor(); }
    bool on_network() const { return shared_->file.on_network(); }

    /// With crc_by_reader: the CRC-32 that a tensor's bytes must have, for those not yet compared.
    const std::map<std::string, std::uint32_t>& expected_crcs() const { return shared_->crcs; }

    /// Every tensor of the root dict in file order, those of dicts inside it as "outer.inner".
    const std::vector<NamedTensor>& tensors() const { return shared_->tensors; }
    bool contains(std::string_view name) const { return find(name) != nullptr; }

    /// Throws DataError that names the file when there is no such tensor.
    TensorView at(std::string_view name) const {
        if (const auto* t = find(name)) return t->tensor;
        throw DataError("no tensor '" + std::string(name) + "'", path().string(),
                        "Check that this is the right file");
    }

private:
    struct Shared {
        Shared(const std::filesystem::path& path, TorchFileOptions options) : file(path) {
            auto bytes = file.bytes();
            const auto where = path.string();
            if (is_gzip(bytes)) {
                unpacked = gunzip(bytes, where);
                bytes = unpacked.view().bytes();
            }
            refuse_other_formats(bytes, where);
            zip = std::make_unique<ZipReader>(bytes, where);
            const auto folder = zip->root_folder() + "/";
            if (zip->contains(folder + "byteorder") && text(folder + "byteorder") != "little")
                throw DataError("written on a big-endian machine", where,
                                "Write it again on a little-endian one");
            builder = std::make_unique<TensorBuilder>(
                [this, folder, options](const std::string& key) {
                    const auto name = folder + "data/" + key;
                    if (storages.insert(name).second && options.verify_crc &&
                        !options.crc_by_reader)
                        zip->verify(name);
                    return zip->at(name);
                },
                where);
            zip->verify(folder + "data.pkl");
            root = PickleReader(zip->at(folder + "data.pkl"), *builder, where).read();
            collect(root, "");
            if (options.verify_crc && options.crc_by_reader) tell_crcs();
        }

        // Storages that no tensor covers are compared here.
        void tell_crcs() {
            std::map<const std::byte*, std::vector<const NamedTensor*>> by_place;
            for (const auto& t : tensors) by_place[t.tensor.data].push_back(&t);
            for (const auto& name : storages) {
                const auto bytes = zip->at(name);
                bool covered = false;
                const auto there = by_place.find(bytes.data());
                if (there != by_place.end() && !bytes.empty())
                    for (const auto* t : there->second)
                        if (t->tensor.size_bytes() == bytes.size()) {
                            crcs[t->name] = zip->crc(name);
                            covered = true;
                        }
                if (!covered || there->second.size() > 1) zip->verify(name);
            }
        }

        std::string text(const std::string& name) const {
            const auto b = zip->at(name);
            return {reinterpret_cast<const char*>(b.data()), b.size()};
        }

        static void refuse_other_formats(std::span<const std::byte> bytes,
                                         const std::string& where) {
            const auto first = [&](std::size_t i) {
                return i < bytes.size() ? static_cast<unsigned>(bytes[i]) : 0u;
            };
            const bool pickle = first(0) == 0x80 && first(1) >= 2 && first(1) <= 5;
            const bool tar = bytes.size() > 262 && std::memcmp(bytes.data() + 257, "ustar", 5) == 0;
            if (pickle || tar)
                throw DataError(
                    "the format of torch before 1.6, which is not read", where,
                    "Load and save it again with a current torch: torch.save(torch.load(f), f)");
        }

        void collect(const PickleValue& v, const std::string& prefix) {
            const auto* d = v.as<PickleDict>();
            if (!d) return;
            for (const auto& [key, value] : d->items) {
                const auto* name = key.as<std::string>();
                if (!name) continue;
                if ((name_bytes += prefix.size() + name->size()) > most_name_bytes)
                    throw DataError("its tensors' names take too much memory", file.path().string(),
                                    "Write the file again");
                if (const auto* t = value.as<TensorView>())
                    tensors.push_back({prefix + *name, *t});
                else
                    collect(value, prefix + *name + ".");
            }
        }

        static constexpr std::size_t most_name_bytes = std::size_t{1} << 28;

        MappedFile file;
        std::size_t name_bytes = 0;
        Tensor unpacked;
        std::unique_ptr<ZipReader> zip;
        std::unique_ptr<TensorBuilder> builder;
        std::set<std::string> storages;  // entries that tensors lie in
        std::map<std::string, std::uint32_t> crcs;
        PickleValue root;
        std::vector<NamedTensor> tensors;
    };

    const NamedTensor* find(std::string_view name) const {
        for (const auto& t : shared_->tensors)
            if (t.name == name) return &t;
        return nullptr;
    }

    std::shared_ptr<const Shared> shared_;
};

}  // namespace eyas
