#pragma once
#include <filesystem>
#include <memory>
#include <mutex>
#include <string>

#include "eyas/store/concept.hpp"
#include "eyas/store/directory_objects.hpp"
#include "eyas/store/shard_set.hpp"
#include "eyas/store/uri.hpp"

namespace eyas {

/// The shards that pack() wrote into a directory: few large files instead of one per sample. Refs
/// to packed samples carry a shard's file:// location and no generation; erasing one is a durable
/// tombstone. Samples that are put go beside them, in .eyas-objects/, as files with generations,
/// and take the place of packed ones. Thread-safe; processes share the directory.
class PackedShards {
public:
    static constexpr std::string_view scheme = "packed", put_directory = ".eyas-objects";
    struct Options {
        std::filesystem::path root;
        bool durable = true;
    };

    /// Throws DataError where there is no such directory.
    explicit PackedShards(Options options)
        : root_(std::filesystem::absolute(options.root / "").lexically_normal().parent_path()),
          durable_(options.durable),
          shards_(root_, durable_) {
        if (!std::filesystem::is_directory(root_))
            throw DataError("no such directory", root_.string(), "Check the path of packed:DIR");
    }

    std::int64_t publish(const std::string& sample, std::span<const NamedTensor> tensors,
                         const Checksums& checksums) {
        const auto generation = put_objects().publish(sample, tensors, checksums);
        shards_.supersede(sample, shard_names());
        return generation;
    }
    std::int64_t adopt(const std::string& sample, const AdoptedFile& file) {
        const auto generation = put_objects().adopt(sample, file);
        shards_.supersede(sample, shard_names());
        return generation;
    }
    StoredObject open(const ObjectKey& key, bool verify) {
        if (key.generation == 0) {
            if (has_objects()) shards_.settle([&] { return put_objects().objects(); });
            return shards_.open(key, verify);
        }
        if (!key.location.empty() && !names(key.location, key))
            throw ContractError("the ref is of another store: " + key.location,
                                "sample '" + key.sample + "', store " + root_.string(),
                                "Open the store that the manifest names");
        return put_objects().open(key, verify);
    }
    void erase(const ObjectKey& key) {
        if (key.generation == 0)
            shards_.erase(key);
        else if (has_objects())
            put_objects().erase(key);
    }
    std::vector<ObjectInfo> objects() {
        return shards_.objects(shard_names(),
                               has_objects() ? put_objects().objects() : std::vector<ObjectInfo>{});
    }
    Usage usage() { return detail::usage_of(objects()); }
    std::string uri(const ObjectKey& key) const {
        return std::string(prefix) + (root_ / encode_file_name(key.sample)).string();
    }
    std::optional<std::string> credential_record() {
        return has_objects() ? put_objects().credential_record() : std::nullopt;
    }
    void set_credential_record(const std::string& record) {
        if (shard_names().empty()) put_objects().set_credential_record(record);
    }

private:
    static constexpr std::string_view prefix = "packed://";

    /// Whether a ref's URI is that of an object here, by whatever way to this directory.
    bool names(const std::string& location, const ObjectKey& key) const {
        return location.starts_with(prefix) &&
               detail::same_place(location.substr(prefix.size()), uri(key).substr(prefix.size()));
    }
    detail::ShardSet::Names shard_names() const { return detail::ShardSet::names_in(root_); }
    bool has_objects() {
        const std::lock_guard lock(mutex_);
        return objects_ || std::filesystem::exists(root_ / put_directory);
    }
    /// Made when the first put or read needs it: a directory that is only read stays as it is.
    detail::DirectoryObjects& put_objects() {
        const std::lock_guard lock(mutex_);
        if (!objects_)
            objects_ = std::make_unique<detail::DirectoryObjects>(
                root_ / put_directory, detail::DirectoryObjects::Options{.durable = durable_});
        return *objects_;
    }

    std::filesystem::path root_;
    bool durable_;
    detail::ShardSet shards_;
    std::mutex mutex_;
    std::unique_ptr<detail::DirectoryObjects> objects_;
};
static_assert(AdoptsFiles<PackedShards>);

/// packed:DIR?durable=0
inline PackedShards::Options packed_shards_options(const StoreUri& uri) {
    PackedShards::Options o{.root = uri.path};
    for (const auto& [key, value] : uri.parameters) {
        if (key != "durable" || (value != "0" && value != "1"))
            throw ContractError("unknown parameter " + key + "=" + value, uri.text,
                                "Use packed:DIR or packed:DIR?durable=0");
        o.durable = value == "1";
    }
    return o;
}

}  // namespace eyas
