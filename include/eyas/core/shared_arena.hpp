#pragma once
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <memory>
#include <mutex>
#include <span>
#include <utility>

#include "eyas/core/file.hpp"

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010  // Linux 5.1
#endif

namespace eyas {

/// Memory that other processes on this machine can map read-only: segments of anonymous files
/// (memfd), filled from the front and never twice, so what somebody still maps does not change. A
/// segment goes when all its blocks have gone. Thread-safe.
class SharedArena {
    struct Segment;

public:
    /// A part of a segment; the memory lives as long as any copy.
    class Block {
    public:
        std::span<std::byte> bytes() const { return bytes_; }
        int descriptor() const { return segment_->fd.get(); }
        std::span<const std::byte> segment() const { return {segment_->base, segment_->size}; }

    private:
        friend class SharedArena;
        Block(std::shared_ptr<Segment> segment, std::span<std::byte> bytes)
            : segment_(std::move(segment)), bytes_(bytes) {}
        std::shared_ptr<Segment> segment_;
        std::span<std::byte> bytes_;
    };

    explicit SharedArena(std::size_t segment_bytes = std::size_t{64} << 20)
        : segment_bytes_(segment_bytes) {}

    /// Zeroed bytes, aligned to 64. Throws ResourceError when there is no memory.
    Block allocate(std::size_t bytes) {
        const auto rounded = (bytes + 63) / 64 * 64;
        const std::lock_guard lock(mutex_);
        if (!current_ || current_->size - used_ < rounded) {
            current_ = std::make_shared<Segment>(std::max(segment_bytes_, rounded));
            used_ = 0;
        }
        const std::span<std::byte> memory(current_->base + used_, bytes);
        used_ += rounded;
        return {current_, memory};
    }

private:
    struct Segment {
        explicit Segment(std::size_t n)
            : fd(::memfd_create("eyas", MFD_CLOEXEC | MFD_ALLOW_SEALING)), size(n) {
            if (!fd) detail::throw_errno("cannot make shared memory", "memfd");
            if (::ftruncate(fd.get(), static_cast<off_t>(size)) != 0)
                detail::throw_errno("cannot make shared memory of " + std::to_string(n) + " bytes",
                                    "memfd");
            void* p = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
            if (p == MAP_FAILED) detail::throw_errno("cannot map shared memory", "memfd");
            base = static_cast<std::byte*>(p);
            // Who gets the file can neither cut it short nor write to it. Older kernels lack the
            // last seal; the mapping that eyas' clients make is read-only anyway.
            ::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW);
            ::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_FUTURE_WRITE);
        }
        Segment(const Segment&) = delete;
        Segment& operator=(const Segment&) = delete;
        ~Segment() { ::munmap(base, size); }

        detail::Fd fd;
        std::byte* base = nullptr;
        std::size_t size;
    };

    std::size_t segment_bytes_;
    std::mutex mutex_;
    std::shared_ptr<Segment> current_;
    std::size_t used_ = 0;
};

}  // namespace eyas
