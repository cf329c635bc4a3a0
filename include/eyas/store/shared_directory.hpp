#pragma once
#include <filesystem>
#include <string>

#include "eyas/store/concept.hpp"
#include "eyas/store/directory_objects.hpp"
#include "eyas/store/shard_set.hpp"
#include "eyas/store/uri.hpp"

namespace eyas {

/// Objects in a directory that producer and trainer pools share (NFS, Lustre, tmpfs):
/// ROOT/STORE_ID/{id}.g{generation}.safetensors, or the reference's .ckpt (SpecForge's
/// SharedDirFeatureStore reads and writes the same directory then). A new instance adopts what is
/// there. Shards that pack() wrote into the directory are read too; a sample that is put takes the
/// place of a packed one.
class SharedDirectory : public detail::DirectoryObjects {
public:
    static constexpr std::string_view scheme = "disagg";
    struct Options {
        std::filesystem::path root;
        std::string store_id = "eyas";
        detail::DirectoryObjects::Options files = {};
    };

    explicit SharedDirectory(Options options)
        : DirectoryObjects(options.root / encode_file_name(options.store_id), options.files),
          store_id_(options.store_id),
          shards_(std::filesystem::absolute(directory()), options.files.durable) {}

    std::int64_t publish(const std::string& sample, std::span<const NamedTensor> tensors,
                         const Checksums& checksums) {
        const auto generation = DirectoryObjects::publish(sample, tensors, checksums);
        shards_.supersede(sample, shard_names());
        return generation;
    }
    std::int64_t adopt(const std::string& sample, const AdoptedFile& file) {
        const auto generation = DirectoryObjects::adopt(sample, file);
        shards_.supersede(sample, shard_names());
        return generation;
    }

    std::string uri(const ObjectKey& key) const {
        return "disagg://" + store_id_ + "/" + key.sample;
    }

    /// Refs of another store are refused before anything is opened.
    StoredObject open(const ObjectKey& key, bool verify) {
        if (is_packed(key)) {
            shards_.settle([&] { return DirectoryObjects::objects(); });
            return shards_.open(key, verify);
        }
        const auto prefix = "disagg://" + store_id_ + "/";
        if (!key.location.empty() && !key.location.starts_with(prefix))
            throw ContractError("the ref is of another store: " + key.location,
                                "sample '" + key.sample + "', store " + store_id_,
                                "Open the store that the manifest names (store_id)");
        return DirectoryObjects::open(key, verify);
    }

    void erase(const ObjectKey& key) {
        if (is_packed(key)) return shards_.erase(key);
        DirectoryObjects::erase(key);
    }
    std::vector<ObjectInfo> objects() {
        return shards_.objects(shard_names(), DirectoryObjects::objects());
    }
    Usage usage() { return detail::usage_of(objects()); }

private:
    static bool is_packed(const ObjectKey& key) {
        return key.generation == 0 && detail::ShardLocation::parse(key.location);
    }

    std::string store_id_;
    detail::ShardSet shards_;
};
static_assert(AdoptsFiles<SharedDirectory>);

/// disagg:DIR?store_id=NAME&payload=ckpt&durable=0
inline SharedDirectory::Options shared_directory_options(const StoreUri& uri) {
    SharedDirectory::Options o{.root = uri.path};
    for (const auto& [key, value] : uri.parameters) {
        if (key == "store_id" && !value.empty())
            o.store_id = value;
        else if (key == "payload" && value == "ckpt")
            o.files.payload = PayloadFormat::Ckpt;
        else if (key == "payload" && value == "safetensors")
            o.files.payload = PayloadFormat::Safetensors;
        else if (key == "durable" && (value == "0" || value == "1"))
            o.files.durable = value == "1";
        else
            throw ContractError("unknown parameter " + key + "=" + value, uri.text,
                                "Use store_id=NAME, payload=safetensors|ckpt, durable=0|1");
    }
    return o;
}

}  // namespace eyas
