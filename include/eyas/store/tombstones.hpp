#pragma once
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <map>
#include <set>
#include <span>
#include <utility>
#include <vector>

#include "eyas/core/checksum.hpp"
#include "eyas/core/file.hpp"

namespace eyas::detail {

/// Which samples of a directory's shards were erased: a file that is only appended to, under its
/// lock, by all processes. A record is 16 bytes: the shard's identity u64, the sample's place in it
/// u32, and u32 of the XXH3-64 of those 12; what a writer that was killed left of one is
/// overwritten. One thread at a time.
class Tombstones {
public:
    static constexpr const char* file_name = ".eyas-erased";
    using Places = std::set<std::uint32_t>;

    Tombstones(std::filesystem::path dir, bool durable)
        : path_(dir / file_name), dir_(std::move(dir)), durable_(durable) {}

    /// Of one shard, as it is now, also by other processes.
    const Places& of(std::uint64_t identity) {
        refresh();
        static const Places none;
        const auto it = erased_.find(identity);
        return it == erased_.end() ? none : it->second;
    }
    bool any() {
        refresh();
        return !erased_.empty();
    }

    /// Records one and calls then(places of this shard), both under the lock. Throws ResourceError
    /// when it cannot be written.
    template <class F>
    void add(std::uint64_t identity, std::uint32_t place, const F& then) {
        Fd fd(::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
        if (!fd) throw_errno("cannot open", path_);
        while (::flock(fd.get(), LOCK_EX) != 0)
            if (errno != EINTR) throw_errno("cannot lock", path_);
        refresh();
        if (!erased_[identity].contains(place)) {
            const auto r = record(identity, place);
            if (::pwrite(fd.get(), r.data(), r.size(), static_cast<off_t>(read_)) !=
                static_cast<ssize_t>(r.size()))
                throw_errno("cannot write", path_);
            if (durable_ && ::fdatasync(fd.get()) != 0) throw_errno("cannot sync", path_);
            if (durable_ && read_ == 0) sync_directory(dir_);
            refresh();
        }
        then(erased_[identity]);
    }

private:
    static constexpr std::size_t record_bytes = 16;

    static std::array<std::byte, record_bytes> record(std::uint64_t identity, std::uint32_t place) {
        std::array<std::byte, record_bytes> r;
        std::memcpy(r.data(), &identity, sizeof identity);
        std::memcpy(r.data() + 8, &place, sizeof place);
        const auto sum = static_cast<std::uint32_t>(xxh3(std::span(r).first(12)));
        std::memcpy(r.data() + 12, &sum, sizeof sum);
        return r;
    }

    /// Reads what was appended since the last call.
    void refresh() {
        struct stat st {};
        if (::stat(path_.c_str(), &st) != 0) {
            if (errno != ENOENT) throw_errno("cannot stat", path_);
            return forget(0);
        }
        const auto size = static_cast<std::uint64_t>(st.st_size) / record_bytes * record_bytes;
        if (st.st_ino != inode_ || size < read_) forget(st.st_ino);
        if (size == read_) return;
        const Fd fd(::open(path_.c_str(), O_RDONLY | O_CLOEXEC));
        if (!fd) throw_errno("cannot open", path_);
        std::vector<std::byte> bytes(size - read_);
        const auto n = ::pread(fd.get(), bytes.data(), bytes.size(), static_cast<off_t>(read_));
        if (n < 0) throw_errno("cannot read", path_);
        const auto whole = static_cast<std::size_t>(n) / record_bytes;
        for (std::size_t i = 0; i < whole; ++i) {
            std::uint64_t identity = 0;
            std::uint32_t place = 0;
            const auto* at = bytes.data() + i * record_bytes;
            std::memcpy(&identity, at, sizeof identity);
            std::memcpy(&place, at + 8, sizeof place);
            if (std::memcmp(record(identity, place).data(), at, record_bytes) == 0)
                erased_[identity].insert(place);
        }
        read_ += whole * record_bytes;
    }
    void forget(ino_t inode) {
        erased_.clear();
        read_ = 0;
        inode_ = inode;
    }

    std::filesystem::path path_, dir_;
    bool durable_;
    std::map<std::uint64_t, Places> erased_;
    std::uint64_t read_ = 0;  // bytes
    ino_t inode_ = 0;
};

}  // namespace eyas::detail
