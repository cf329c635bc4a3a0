#pragma once
#include <sys/mman.h>
#include <sys/stat.h>

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <utility>

#include "eyas/core/file.hpp"

namespace eyas::detail {

/// A file of a pool on this machine, mapped read-only.
class FileMap {
public:
    /// Throws DataError when the file is smaller than announced, or of a network file system
    /// (whose server may fail, which would end this process); ResourceError when it cannot be
    /// mapped.
    FileMap(Fd fd, std::uint64_t bytes, const std::string& where) : size_(bytes) {
        struct stat st {};
        if (::fstat(fd.get(), &st) != 0) throw_errno("cannot stat what was handed over", where);
        if (!S_ISREG(st.st_mode) || static_cast<std::uint64_t>(st.st_size) < bytes)
            throw DataError("the file that was handed over is smaller than announced", where,
                            "Check that both sides run the same version of eyas");
        if (lies_on_network(fd.get()))
            throw DataError("the file that was handed over is of a network file system", where,
                            "Check that both sides run the same version of eyas");
        void* p = ::mmap(nullptr, size_, PROT_READ, MAP_SHARED, fd.get(), 0);
        if (p == MAP_FAILED) throw_errno("cannot map what was handed over", where);
        base_ = static_cast<const std::byte*>(p);
    }
    FileMap(const FileMap&) = delete;
    FileMap& operator=(const FileMap&) = delete;
    ~FileMap() { ::munmap(const_cast<std::byte*>(base_), size_); }

    std::span<const std::byte> bytes() const { return {base_, size_}; }

private:
    const std::byte* base_ = nullptr;
    std::size_t size_;
};

/// Mappings in use, so that a file that holds many objects is mapped once. Thread-safe.
class FileMaps {
public:
    /// The file's inode says which it is: a pool's own number may mean another file later.
    std::shared_ptr<const FileMap> map(Fd fd, std::uint64_t bytes, const std::string& where) {
        struct stat st {};
        if (::fstat(fd.get(), &st) != 0) throw_errno("cannot stat what was handed over", where);
        const std::pair key(st.st_dev, st.st_ino);
        const std::lock_guard lock(mutex_);
        std::erase_if(maps_, [](const auto& entry) { return entry.second.expired(); });
        auto& known = maps_[key];
        auto map = known.lock();
        if (!map || map->bytes().size() < bytes)
            known = map = std::make_shared<const FileMap>(std::move(fd), bytes, where);
        return map;
    }

private:
    std::mutex mutex_;
    std::map<std::pair<dev_t, ino_t>, std::weak_ptr<const FileMap>> maps_;
};

}  // namespace eyas::detail
