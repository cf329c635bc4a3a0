#pragma once
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "eyas/core/checksum.hpp"
#include "eyas/core/file.hpp"
#include "eyas/format/safetensors.hpp"
#include "eyas/format/torch_file.hpp"
#include "eyas/store/concept.hpp"
#include "eyas/store/directory_index.hpp"

namespace eyas {

/// How a directory backend writes an object: safetensors with a checksum per tensor, or the
/// reference's .ckpt. Both are read.
enum class PayloadFormat { Safetensors, Ckpt };

namespace detail {

/// One file per object in one directory, for backends that keep objects in files. A file appears
/// under its name by one rename after it was synced, so it is whole or absent, and never takes the
/// place of another; what a killed writer
/// left is invisible and swept once it is old. Thread-safe; processes share the directory.
class DirectoryObjects {
public:
    struct Options {
        PayloadFormat payload = PayloadFormat::Safetensors;
        bool durable = true;                     // sync files and directory before a put returns
        std::chrono::seconds sweep_after{3600};  // leftovers older than this are removed on opening
    };

    DirectoryObjects(std::filesystem::path dir, Options options)
        : dir_(std::move(dir)), options_(options), index_(dir_) {
        eyas::create_directories(dir_);
        sweep();
    }

    /// Of the metadata that hold tensors' checksums.
    static constexpr const char* checksum_prefix = "xxh3:";

    const std::filesystem::path& directory() const { return dir_; }

    /// How often this instance listed the directory.
    std::uint64_t listings() {
        const std::lock_guard guard(mutex_);
        return index_.listings();
    }

    std::int64_t publish(const std::string& sample, std::span<const NamedTensor> tensors,
                         const Checksums& checksums) {
        ObjectName name{sample, 0,
                        options_.payload == PayloadFormat::Ckpt ? ".ckpt" : ".safetensors"};
        eyas::create_directories(dir_ / temporary_directory);
        AtomicFile file(dir_ / name.text(), options_.durable, dir_ / temporary_directory);
        if (options_.payload == PayloadFormat::Ckpt) {
            write_torch_file(file, tensors);
        } else {
            std::map<std::string, std::string> metadata{{"format", "pt"}};
            for (const auto& [feature, sum] : checksums)
                metadata[checksum_prefix + feature] = hex64(sum);
            write_safetensors(file, tensors, metadata);
        }
        file.sync();  // the long part, without the lock
        return appear(std::move(name), file.bytes(),
                      [&](const std::filesystem::path& path) { return file.commit_new(path); });
    }

    /// Makes a .ckpt of this file system an object without reading it: a clone that shares its
    /// blocks where the file system has those, else a second name of the same file, which nobody
    /// may write to from then on (a reader would find its CRCs wrong).
    std::int64_t adopt(const std::string& sample, const AdoptedFile& from) {
        const ObjectName name{sample, 0, ".ckpt"};
        struct stat st {};
        if (::fstat(from.descriptor, &st) != 0) throw_errno("cannot stat", from.path);
        if (options_.durable && ::fsync(from.descriptor) != 0)
            throw_errno("cannot sync", from.path);
        eyas::create_directories(dir_ / temporary_directory);
        AtomicFile clone(dir_ / name.text(), options_.durable, dir_ / temporary_directory);
        const bool cloned = ::ioctl(clone.descriptor(), FICLONE, from.descriptor) == 0;
        return appear(name, static_cast<std::uint64_t>(st.st_size),
                      [&](const std::filesystem::path& path) {
                          if (cloned) return clone.commit_new(path);
                          if (!link(from, path)) return false;
                          if (options_.durable) sync_directory(dir_);
                          return true;
                      });
    }

    /// Files of packed samples in the directory.
    ShardSet::Names shard_names() {
        const std::lock_guard guard(mutex_);
        DirectoryIndex::Lock lock(index_);
        return index_.shards();
    }

    StoredObject open(const ObjectKey& key, bool verify) {
        const auto stem = (dir_ / ObjectName{key.sample, key.generation, ""}.text()).string();
        const bool safetensors = std::filesystem::exists(stem + ".safetensors");
        if (!safetensors && !std::filesystem::exists(stem + ".ckpt")) gone(key);
        const auto newer = (dir_ / ObjectName{key.sample, key.generation + 1, ""}.text()).string();
        for (const char* suffix : {".safetensors", ".ckpt"})  // its writer was killed in between
            if (std::filesystem::exists(newer + suffix)) gone(key);
        try {
            return safetensors ? open_safetensors(stem + ".safetensors")
                               : open_torch(stem + ".ckpt", verify);
        } catch (const DataError&) {
            if (!std::filesystem::exists(stem + (safetensors ? ".safetensors" : ".ckpt")))
                gone(key);  // erased in between
            throw;
        }
    }

    static StoredObject open_torch(const std::filesystem::path& path, bool verify) {
        auto file = std::make_shared<const TorchFile>(
            path, TorchFileOptions{.verify_crc = verify, .crc_by_reader = true});
        return {file->tensors(),
                {},
                file,
                {file->descriptor(), file->bytes(), file->on_network()},
                file->expected_crcs()};
    }

    void erase(const ObjectKey& key) {
        const std::lock_guard guard(mutex_);
        DirectoryIndex::Lock lock(index_);
        const auto it = index_.objects().find({key.sample, key.generation});
        if (it == index_.objects().end()) return;
        lock.retire(key.generation, options_.durable);
        lock.change([&] {
            index_.require_no_remains(key.sample);
            DirectoryIndex::remove_file(index_.path_of(*it));
            index_.objects().erase(it);
        });
    }

    std::vector<ObjectInfo> objects() {
        const std::lock_guard guard(mutex_);
        DirectoryIndex::Lock lock(index_);
        std::vector<ObjectInfo> all;
        const auto now = std::chrono::system_clock::now();
        for (const auto& [key, entry] : index_.objects())
            all.push_back({{key.first, key.second},
                           entry.bytes,
                           std::chrono::duration<double>(now - entry.published).count()});
        return all;
    }

    Usage usage() { return usage_of(objects()); }

    std::optional<std::string> credential_record() const {
        const auto path = dir_ / credential_name;
        if (!std::filesystem::exists(path)) return std::nullopt;
        auto text = read_text_file(path);
        while (!text.empty() && text.back() == '\n') text.pop_back();
        return text;
    }
    void set_credential_record(const std::string& record) {
        const std::lock_guard guard(mutex_);
        DirectoryIndex::Lock lock(index_);  // of several that open it first, one is the owner
        if (credential_record() || !index_.objects().empty() || !index_.shards().empty()) return;
        AtomicFile file(dir_ / credential_name, true, dir_);  // a link there is not followed
        file.write(record + "\n");
        file.commit();
    }

private:
    // Beside the objects, not among them: making a temporary does not change their directory.
    static constexpr const char* temporary_directory = ".eyas-tmp";
    static constexpr const char* credential_name = ".eyas-credential";

    /// The last step of a new object: it gets its generation, and by place(path) its name, unless
    /// another program, which takes no lock, has just given it away: then the next.
    template <class F>
    std::int64_t appear(ObjectName name, std::uint64_t bytes, const F& place) {
        const std::lock_guard guard(mutex_);
        DirectoryIndex::Lock lock(index_);
        for (;;) {
            name.generation = std::max(index_.next(name.sample), name.generation + 1);
            bool placed = false;
            lock.change([&] {
                placed = place(dir_ / name.text());
                if (!placed) return;
                index_.drop(name.sample);
                index_.add(name, bytes, std::chrono::system_clock::now());
            });
            if (placed) return name.generation;
            index_.list();
        }
    }

    /// By its descriptor, so that it is the very file that was looked at. False where the name is
    /// taken.
    static bool link(const AdoptedFile& from, const std::filesystem::path& to) {
        const auto opened = "/proc/self/fd/" + std::to_string(from.descriptor);
        if (::linkat(AT_FDCWD, opened.c_str(), AT_FDCWD, to.c_str(), AT_SYMLINK_FOLLOW) == 0)
            return true;
        if (errno == EEXIST) return false;
        throw ResourceError(std::string("cannot link into the store: ") + std::strerror(errno),
                            from.path.string() + " -> " + to.string(),
                            errno == EXDEV ? "Put files and store on one file system, or ingest "
                                             "without --link"
                                           : "Check permissions, or ingest without --link");
    }

    [[noreturn]] void gone(const ObjectKey& key) const {
        throw StaleReferenceError("generation " + std::to_string(key.generation) +
                                      " is not here: consumed, put again, or never written",
                                  "sample '" + key.sample + "' in " + dir_.string(),
                                  "Use the newest manifest, or ingest the sample again");
    }

    static StoredObject open_safetensors(const std::filesystem::path& path) {
        auto file = std::make_shared<const SafetensorsFile>(path);
        StoredObject object{
            file->tensors(), {}, file, {file->descriptor(), file->bytes(), file->on_network()}};
        for (const auto& t : object.tensors) {
            const auto it = file->metadata().find(checksum_prefix + t.name);
            if (it == file->metadata().end())
                throw DataError("no checksum of tensor '" + t.name + "'", path.string(),
                                "Ingest the sample again");
            object.checksums[t.name] = parse_hex64(it->second, path.string());
        }
        return object;
    }

    static std::uint64_t parse_hex64(const std::string& text, const std::string& where) {
        std::uint64_t v = 0;
        const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), v, 16);
        if (error != std::errc{} || end != text.data() + text.size())
            throw DataError("bad checksum '" + text + "'", where, "Ingest the sample again");
        return v;
    }

    void sweep() const {
        std::error_code e;
        for (const auto& entry :
             std::filesystem::directory_iterator(dir_ / temporary_directory, e)) {
            const auto age = std::filesystem::file_time_type::clock::now() -
                             std::filesystem::last_write_time(entry.path(), e);
            if (!e && age >= options_.sweep_after) std::filesystem::remove(entry.path(), e);
        }
    }

    std::filesystem::path dir_;
    Options options_;
    std::mutex mutex_;
    DirectoryIndex index_;
};

}  // namespace detail
}  // namespace eyas
