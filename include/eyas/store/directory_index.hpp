#pragma once
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <charconv>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <iterator>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "eyas/core/file.hpp"
#include "eyas/core/file_name.hpp"
#include "eyas/store/shard_set.hpp"

namespace eyas::detail {

/// An object file's name: {encoded id}.g{generation}{suffix}.
struct ObjectName {
    std::string sample;
    std::int64_t generation = 0;
    std::string suffix;  // ".safetensors" or ".ckpt"

    static constexpr std::int64_t most_generations = std::int64_t{1} << 62;

    std::string text() const {
        return encode_file_name(sample) + ".g" + std::to_string(generation) + suffix;
    }

    /// Nothing for names that text() does not make, such as other spellings of the same id.
    static std::optional<ObjectName> parse(std::string_view name) {
        for (std::string_view suffix : {".safetensors", ".ckpt"}) {
            if (!name.ends_with(suffix)) continue;
            const auto stem = name.substr(0, name.size() - suffix.size());
            const auto dot = stem.rfind(".g");
            if (dot == std::string_view::npos || dot == 0) return std::nullopt;
            ObjectName n{"", 0, std::string(suffix)};
            const auto digits = stem.substr(dot + 2);
            const auto [end, error] =
                std::from_chars(digits.data(), digits.data() + digits.size(), n.generation);
            if (error != std::errc{} || end != digits.data() + digits.size() || n.generation < 1 ||
                n.generation > most_generations)
                return std::nullopt;
            try {
                n.sample = decode_file_name(stem.substr(0, dot));
                return n.text() == name ? std::optional(n) : std::nullopt;
            } catch (const Error&) {  // not encoded, or longer than an encoded id
                return std::nullopt;
            }
        }
        return std::nullopt;
    }
};

/// Which object files a directory holds, kept in memory and right across processes: every change is
/// made under a file lock and counted in the lock file, so the directory is listed again only when
/// somebody else changed it (another program's changes are seen by the directory's modification
/// time). So n puts by one process take time linear in n. One thread at a time.
class DirectoryIndex {
public:
    struct Entry {
        std::string suffix;
        std::uint64_t bytes = 0;
        std::chrono::system_clock::time_point published;
    };
    using Objects = std::map<std::pair<std::string, std::int64_t>, Entry>;  // (sample, generation)

    explicit DirectoryIndex(std::filesystem::path dir) : dir_(std::move(dir)) {}

    /// Holds the directory's lock; other processes wait meanwhile. Where the directory may only be
    /// read, nothing can be changed, and it is listed without a lock if none was ever made.
    class Lock {
    public:
        /// ResourceError when the directory cannot be locked or listed.
        explicit Lock(DirectoryIndex& index) : index_(index), fd_(open_lock(index.path())) {
            while (fd_ && ::flock(fd_.get(), writable_ ? LOCK_EX : LOCK_SH) != 0)
                if (errno != EINTR) throw_errno("cannot lock", index.path());
            Counters now;  // older files have only the first
            if (fd_ && ::pread(fd_.get(), &now, sizeof now, 0) < 0)
                throw_errno("cannot read", index.path());
            if (now.retired > static_cast<std::uint64_t>(ObjectName::most_generations))
                throw DataError("its counters are impossible", index.path().string(),
                                "Restore the file, or ingest into a new store");
            if (!index_.known_ || now.changes != index_.counters_.changes ||
                index_.modified() != index_.modified_)
                index_.list();
            index_.counters_ = now;
        }

        /// Changes the directory by f(). The change is counted before it is made, so that others
        /// look again even where this process ends half-way. ResourceError where the directory may
        /// only be read.
        template <class F>
        void change(const F& f) {
            index_.known_ = false;
            ++index_.counters_.changes;
            write_counters();
            f();
            index_.modified_ = index_.modified();
            index_.known_ = true;
        }
        /// Before the change() that erases an object: its generation is never given again. It is
        /// noted (on the disk, where `durable`) before the object goes.
        void retire(std::int64_t generation, bool durable) {
            auto& top = index_.counters_.retired;
            if (top >= static_cast<std::uint64_t>(generation)) return;
            top = static_cast<std::uint64_t>(generation);
            write_counters();
            if (durable && ::fdatasync(fd_.get()) != 0) throw_errno("cannot sync", index_.path());
        }

    private:
        Fd open_lock(const std::filesystem::path& path) {
            Fd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
            if (fd) return fd;
            if (errno != EACCES && errno != EPERM && errno != EROFS)
                throw_errno("cannot open the store's lock", path);
            writable_ = false;
            return Fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
        }
        void write_counters() {
            if (!writable_)
                throw ResourceError("the store may only be read", index_.dir_.string(),
                                    "Check the directory's permissions");
            const auto counters = index_.counters_;
            if (::pwrite(fd_.get(), &counters, sizeof counters, 0) < 0)
                throw_errno("cannot write", index_.path());
        }

        DirectoryIndex& index_;
        bool writable_ = true;
        Fd fd_;
    };

    Objects& objects() { return objects_; }
    const ShardSet::Names& shards() const { return shards_; }  // files of packed samples

    /// Takes away all objects of a sample; they are no longer current, whether their files go or
    /// not.
    void drop(const std::string& sample) {
        for (auto it = objects_.lower_bound({sample, 0});
             it != objects_.end() && it->first.first == sample;)
            it = drop(it);
    }
    /// Before a sample's newest object is erased: what could not be removed of its older ones must
    /// not become readable again. ResourceError while one still cannot be removed.
    void require_no_remains(const std::string& sample) {
        for (auto it = remains_.lower_bound({sample, 0});
             it != remains_.end() && it->first.first == sample; it = remains_.erase(it))
            remove_file(path_of(*it));
    }
    std::filesystem::path path_of(const Objects::value_type& object) const {
        const auto& [key, entry] = object;
        return dir_ / ObjectName{key.first, key.second, entry.suffix}.text();
    }
    static void remove_file(const std::filesystem::path& path) {
        std::error_code e;
        std::filesystem::remove(path, e);
        if (e)
            throw ResourceError("cannot remove: " + e.message(), path.string(),
                                "Check permissions");
    }

    /// The generation that a sample's next object gets: one more than its newest; for a sample
    /// that is not here, one more than any that was ever erased here, since it may have been among
    /// those. So a ref never comes to mean other bytes.
    std::int64_t next(const std::string& sample) const {
        const auto after = objects_.upper_bound({sample, ObjectName::most_generations});
        const bool here = after != objects_.begin() && std::prev(after)->first.first == sample;
        return 1 + (here ? std::prev(after)->first.second
                         : static_cast<std::int64_t>(counters_.retired));
    }
    std::uint64_t listings() const { return listings_; }  // how often the directory was listed
    void add(const ObjectName& n, std::uint64_t bytes,
             std::chrono::system_clock::time_point published) {
        objects_[{n.sample, n.generation}] = {n.suffix, bytes, published};
    }

    /// Looks at the directory again, under its lock. ResourceError when it cannot be listed.
    void list() {
        known_ = false;
        ++listings_;
        modified_ = modified();
        objects_.clear();
        remains_.clear();
        shards_.clear();
        std::error_code error;
        std::filesystem::directory_iterator it(dir_, error);
        for (; !error && it != std::filesystem::directory_iterator(); it.increment(error)) {
            const auto& e = *it;
            auto file = e.path().filename().string();
            const auto name = ObjectName::parse(file);
            if (!name) {
                if (PackedShard::is_file_name(file)) shards_.insert(std::move(file));
                continue;
            }
            struct stat st {};
            if (::stat(e.path().c_str(), &st) != 0)
                continue;  // erased meanwhile by another program
            add(*name, static_cast<std::uint64_t>(st.st_size),
                std::chrono::system_clock::from_time_t(st.st_mtim.tv_sec) +
                    std::chrono::duration_cast<std::chrono::system_clock::duration>(
                        std::chrono::nanoseconds(st.st_mtim.tv_nsec)));
        }
        if (error)
            throw ResourceError("cannot list: " + error.message(), dir_.string(),
                                "Check permissions and the file system");
        drop_superseded();
        known_ = true;
    }

    static constexpr const char* lock_name = ".eyas-lock";

private:
    std::filesystem::path path() const { return dir_ / lock_name; }
    Objects::iterator drop(Objects::iterator it) {
        std::error_code error;
        std::filesystem::remove(path_of(*it), error);
        if (error) remains_.insert(*it);
        return objects_.erase(it);
    }

    std::pair<std::int64_t, std::int64_t> modified() const {
        struct stat st {};
        if (::stat(dir_.c_str(), &st) != 0) throw_errno("cannot stat", dir_);
        return {st.st_mtim.tv_sec, st.st_mtim.tv_nsec};
    }

    struct Counters {
        std::uint64_t changes = 0;  // of the directory
        std::uint64_t retired = 0;  // the highest generation of an erased object
    };

    /// Older generations, which a writer that was killed left behind, are no objects.
    void drop_superseded() {
        for (auto it = objects_.begin(); it != objects_.end();) {
            const auto next = std::next(it);
            if (next != objects_.end() && next->first.first == it->first.first) drop(it);
            it = next;
        }
        modified_ = modified();
    }

    std::filesystem::path dir_;
    bool known_ = false;
    Counters counters_;
    std::uint64_t listings_ = 0;
    std::pair<std::int64_t, std::int64_t> modified_{};
    Objects objects_, remains_;  // remains: superseded, and could not be removed
    ShardSet::Names shards_;
};

}  // namespace eyas::detail
