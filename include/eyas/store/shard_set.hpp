#pragma once
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "eyas/core/file.hpp"
#include "eyas/store/concept.hpp"
#include "eyas/store/packed_shard.hpp"
#include "eyas/store/tombstones.hpp"

namespace eyas::detail {

/// The shards of one directory, for every store that reads files. Each is mapped when it is first
/// needed, and once; a packed sample is erased by a tombstone, and a shard's file goes with its
/// last sample. Packed samples have generation 0. Thread-safe; processes share the directory.
class ShardSet {
public:
    using Names = std::set<std::string>;

    explicit ShardSet(std::filesystem::path dir, bool durable = true)
        : dir_(std::move(dir)), tombstones_(dir_, durable) {}

    /// The shards that a directory holds now. Throws ResourceError when it cannot be listed.
    static Names names_in(const std::filesystem::path& dir) {
        Names names;
        std::error_code error;
        std::filesystem::directory_iterator it(dir, error);
        for (; !error && it != std::filesystem::directory_iterator(); it.increment(error)) {
            auto name = it->path().filename().string();
            if (PackedShard::is_file_name(name)) names.insert(std::move(name));
        }
        if (error)
            throw ResourceError("cannot list: " + error.message(), dir.string(),
                                "Check permissions and the file system");
        return names;
    }

    /// Throws StaleReferenceError when shard or sample is gone or the name means another shard now,
    /// ContractError for a ref that names no shard of this directory, DataError for bad bytes.
    StoredObject open(const ObjectKey& key, bool verify) {
        const auto location = located(key);
        std::shared_ptr<const PackedShard> shard;
        std::optional<std::size_t> place;
        {
            const std::lock_guard lock(mutex_);
            shard = current(location.file.filename().string());
            if (shard && (!location.identity || *location.identity == shard->index().identity()))
                place = living(*shard, key.sample);
        }
        if (!place)
            throw StaleReferenceError(
                "it is not there: consumed, put again, or packed again",
                "sample '" + key.sample + "' of " + (dir_ / location.file.filename()).string(),
                "Use the newest manifest, or pack the samples again");
        return shard->open(*place, verify);
    }

    /// No error where there is no such sample.
    void erase(const ObjectKey& key) {
        const auto location = located(key);
        const std::lock_guard lock(mutex_);
        const auto shard = current(location.file.filename().string());
        if (shard && (!location.identity || *location.identity == shard->index().identity()))
            bury(*shard, key.sample);
    }

    /// A sample was put as an object of its own: what these shards hold of it is gone. Shards that
    /// cannot be read are left out.
    void supersede(const std::string& sample, const Names& names) {
        const std::lock_guard lock(mutex_);
        for (const auto& name : names)
            if (const auto shard = readable(name)) bury(*shard, sample);
    }

    /// Before packed samples are read, once: a writer may have been killed when it had put a sample
    /// and not yet buried the packed one. `put()` gives the objects that were put into the
    /// directory. Where it can only be read, nothing is done.
    template <class F>
    void settle(const F& put) {
        std::call_once(settled_, [&] {
            try {
                const auto names = names_in(dir_);
                for (const ObjectInfo& o : put()) supersede(o.key.sample, names);
            } catch (const ResourceError&) {
            }
        });
    }

    /// `all` and the samples of these shards, ascending in each. Shards that cannot be read are
    /// left out.
    std::vector<ObjectInfo> objects(const Names& names, std::vector<ObjectInfo> all) {
        const std::lock_guard lock(mutex_);
        for (const auto& name : names) {
            const auto shard = readable(name);
            if (!shard) continue;
            const auto& gone = tombstones_.of(shard->index().identity());
            const auto location = ShardLocation{dir_ / name, shard->index().identity()}.text();
            for (std::size_t i = 0; i < shard->index().size(); ++i)
                if (!gone.contains(static_cast<std::uint32_t>(i)))
                    all.push_back({{std::string(shard->index().id(i)), 0, location},
                                   shard->stored_bytes(i),
                                   mapped_.at(name).age()});
        }
        return all;
    }

    const std::filesystem::path& directory() const { return dir_; }

private:
    struct Mapped {
        std::shared_ptr<const PackedShard> shard;
        ino_t inode = 0;
        std::chrono::system_clock::time_point written = {};

        double age() const {
            return std::chrono::duration<double>(std::chrono::system_clock::now() - written)
                .count();
        }
    };

    /// A location that names a shard here: in this directory, or anywhere with an identity, by
    /// which it is known on machines that see the directory under another name.
    ShardLocation located(const ObjectKey& key) const {
        const auto canonical = [](const auto& p) { return std::filesystem::weakly_canonical(p); };
        const auto location = ShardLocation::parse(key.location);
        if (location && (location->identity || location->file.parent_path() == dir_ ||
                         canonical(location->file.parent_path()) == canonical(dir_)))
            return *location;
        throw ContractError("the ref is of another store: " + key.location,
                            "sample '" + key.sample + "', shards of " + dir_.string(),
                            "Open the store that the manifest names");
    }

    /// The shard that has this name now; null where there is none. Throws ResourceError where that
    /// cannot be told.
    std::shared_ptr<const PackedShard> current(const std::string& name) {
        struct stat st {};
        if (::stat((dir_ / name).c_str(), &st) != 0) {
            if (errno != ENOENT && errno != ENOTDIR) throw_errno("cannot stat", dir_ / name);
            mapped_.erase(name);
            return nullptr;
        }
        auto& m = mapped_[name];
        if (m.shard && m.inode == st.st_ino) return m.shard;
        m = {nullptr, st.st_ino, std::chrono::system_clock::from_time_t(st.st_mtim.tv_sec)};
        try {
            m.shard = std::make_shared<const PackedShard>(dir_ / name);
        } catch (const DataError&) {
            if (std::filesystem::exists(dir_ / name)) throw;  // else it went just now
        }
        return m.shard;
    }

    /// The same; null also for one that cannot be read. open() says what is wrong with it.
    std::shared_ptr<const PackedShard> readable(const std::string& name) {
        try {
            return current(name);
        } catch (const DataError&) {
            return nullptr;
        } catch (const ResourceError&) {
            if (::access((dir_ / name).c_str(), R_OK) == 0) throw;  // but want of memory, say
            return nullptr;
        }
    }

    std::optional<std::size_t> living(const PackedShard& shard, const std::string& sample) {
        const auto place = shard.index().find(sample);
        if (!place ||
            tombstones_.of(shard.index().identity()).contains(static_cast<std::uint32_t>(*place)))
            return std::nullopt;
        return place;
    }

    void bury(const PackedShard& shard, const std::string& sample) {
        const auto place = living(shard, sample);
        if (!place) return;
        const auto& index = shard.index();
        tombstones_.add(index.identity(), static_cast<std::uint32_t>(*place),
                        [&](const Tombstones::Places& gone) {
                            if (gone.size() < index.size()) return;
                            std::error_code e;
                            std::filesystem::remove(shard.path(), e);
                            if (e)
                                throw ResourceError("cannot remove: " + e.message(),
                                                    shard.path().string(), "Check permissions");
                        });
    }

    std::filesystem::path dir_;
    std::once_flag settled_;
    std::mutex mutex_;
    std::map<std::string, Mapped> mapped_;
    Tombstones tombstones_;
};

}  // namespace eyas::detail
