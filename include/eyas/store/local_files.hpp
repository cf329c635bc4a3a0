#pragma once
#include <filesystem>
#include <map>
#include <string>

#include "eyas/store/concept.hpp"
#include "eyas/store/directory_objects.hpp"
#include "eyas/store/shard_set.hpp"
#include "eyas/store/uri.hpp"

namespace eyas {

/// Feature files (.ckpt, .ckpt.gz) where they lie, on this machine: the colocated store. Refs that
/// ingest/scan.hpp makes carry file:// URIs and no generation; such files are read, never removed,
/// and so are samples of shards that pack() wrote.
/// Samples that are put go beside them, in .eyas-objects/, as .ckpt files with generations.
class LocalFiles {
public:
    static constexpr std::string_view scheme = "file", put_directory = ".eyas-objects";
    struct Options {
        std::filesystem::path root;
        bool durable = true;
    };

    explicit LocalFiles(Options options)
        : root_(std::filesystem::absolute(options.root / "").lexically_normal().parent_path()),
          durable_(options.durable) {
        if (!std::filesystem::exists(root_))
            throw DataError("no such directory", root_.string(), "Check the path of file:DIR");
    }

    std::int64_t publish(const std::string& sample, std::span<const NamedTensor> tensors,
                         const Checksums& checksums) {
        return put_objects().publish(sample, tensors, checksums);
    }
    StoredObject open(const ObjectKey& key, bool verify) {
        if (key.generation > 0) {
            if (!key.location.empty() && !names(key.location, key))
                throw ContractError("the ref is of another store: " + key.location,
                                    "sample '" + key.sample + "', store " + root_.string(),
                                    "Open the store that the manifest names");
            return put_objects().open(key, verify);
        }
        if (const auto packed = detail::ShardLocation::parse(key.location))
            return shards_of(checked_path(key, packed->file)).open(key, verify);
        return detail::DirectoryObjects::open_torch(checked_path(key), verify);
    }
    void erase(const ObjectKey& key) {
        if (key.generation == 0)
            throw ContractError("feature files where they lie are never removed",
                                "sample '" + key.sample + "', store " + root_.string(),
                                "Do without consume-once, or ingest them into a store");
        if (has_objects()) put_objects().erase(key);
    }
    std::vector<ObjectInfo> objects() {
        return has_objects() ? put_objects().objects() : std::vector<ObjectInfo>{};
    }
    Usage usage() { return has_objects() ? put_objects().usage() : Usage{}; }
    std::string uri(const ObjectKey& key) const {
        return std::string(prefix) + (object_directory() / encode_file_name(key.sample)).string();
    }
    std::optional<std::string> credential_record() {
        return has_objects() ? put_objects().credential_record() : std::nullopt;
    }
    void set_credential_record(const std::string& record) {
        put_objects().set_credential_record(record);
    }

private:
    static constexpr std::string_view prefix = "file://";

    std::filesystem::path object_directory() const { return root_ / put_directory; }
    bool has_objects() {
        const std::lock_guard lock(mutex_);
        return objects_ || std::filesystem::exists(object_directory());
    }
    /// Made when the first put or read needs it: a directory that is only read stays as it is.
    detail::DirectoryObjects& put_objects() {
        const std::lock_guard lock(mutex_);
        if (!objects_)
            objects_ = std::make_unique<detail::DirectoryObjects>(
                object_directory(), detail::DirectoryObjects::Options{
                                        .payload = PayloadFormat::Ckpt, .durable = durable_});
        return *objects_;
    }

    detail::ShardSet& shards_of(const std::filesystem::path& shard) {
        const std::lock_guard lock(mutex_);
        const auto dir = shard.parent_path();
        return shards_.try_emplace(dir.string(), dir).first->second;
    }

    /// Whether a ref's URI is that of an object here, by whatever way to this directory.
    bool names(const std::string& location, const ObjectKey& key) const {
        return location.starts_with(prefix) &&
               detail::same_place(location.substr(prefix.size()), uri(key).substr(prefix.size()));
    }

    /// The file of a file:// URI, which must lie under the root (or be it).
    std::filesystem::path checked_path(const ObjectKey& key) const {
        const auto where = "sample '" + key.sample + "'";
        if (!key.location.starts_with(prefix))
            throw ContractError("the ref is of another store: " + key.location, where,
                                "Open the store that the manifest names");
        return checked_path(key, key.location.substr(prefix.size()));
    }
    std::filesystem::path checked_path(const ObjectKey& key,
                                       const std::filesystem::path& given) const {
        const auto where = "sample '" + key.sample + "'";
        auto path = given.lexically_normal();
        const auto canonical = [](const auto& p) { return std::filesystem::weakly_canonical(p); };
        if (!lies_in(path, root_) && !lies_in(canonical(path), canonical(root_)))
            throw ContractError("the file lies outside " + root_.string(),
                                where + ": " + path.string(),
                                "Open file:DIR on a directory that holds it");
        if (!std::filesystem::exists(path))
            throw StaleReferenceError("the file is gone: " + path.string(), where,
                                      "Capture the sample again");
        return path;
    }

    /// Whether a path is the root or lies below it. Links inside the root are the owner's business.
    static bool lies_in(const std::filesystem::path& path, const std::filesystem::path& root) {
        const auto relative = path.lexically_relative(root);
        return path == root || (!relative.empty() && *relative.begin() != "..");
    }

    std::filesystem::path root_;
    bool durable_;
    std::mutex mutex_;
    std::unique_ptr<detail::DirectoryObjects> objects_;
    std::map<std::string, detail::ShardSet> shards_;  // by directory
};
static_assert(StoreBackend<LocalFiles>);

/// file:DIR
inline LocalFiles::Options local_files_options(const StoreUri& uri) {
    if (!uri.parameters.empty())
        throw ContractError("file: takes no parameters", uri.text, "Use file:DIR");
    return {.root = uri.path};
}

}  // namespace eyas
