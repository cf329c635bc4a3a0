#pragma once
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "eyas/core/error.hpp"
#include "eyas/core/file.hpp"

// What fuzz targets share. A target is one file NAME_fuzz.cc with LLVMFuzzerTestOneInput and a
// folder corpus/NAME; nothing else has to be told about it (tests/fuzz/BUILD.bazel and run.sh look
// for the files).
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace eyas::fuzz {

inline std::span<const std::byte> bytes_of(const std::uint8_t* data, std::size_t size) {
    return std::as_bytes(std::span(data, size));
}

/// Runs f. Only eyas' own errors are an answer to hostile bytes; anything else ends the run.
template <class F>
void refuse_or_read(const F& f) {
    try {
        f();
    } catch (const Error&) {
    }
}

/// What was read does not hold together: a finding.
inline void require(bool holds) {
    if (!holds) std::abort();
}

/// Reads every byte, so that a sanitizer sees a view that leaves its memory.
inline void touch(std::span<const std::byte> bytes) {
    unsigned sum = 0;
    for (const auto b : bytes) sum += static_cast<unsigned>(b);
    asm volatile("" : : "r"(sum));  // used, as far as the compiler knows
}

/// Bytes as a file without a name on a disk, for readers that take paths.
class BytesAsFile {
public:
    explicit BytesAsFile(std::span<const std::byte> bytes)
        : fd_(::memfd_create("fuzz", MFD_CLOEXEC)) {
        require(static_cast<bool>(fd_));
        for (std::size_t at = 0; at < bytes.size();) {
            const auto n = ::write(fd_.get(), bytes.data() + at, bytes.size() - at);
            require(n > 0);
            at += static_cast<std::size_t>(n);
        }
    }
    std::filesystem::path path() const { return "/proc/self/fd/" + std::to_string(fd_.get()); }

private:
    detail::Fd fd_;
};

/// The input as a row of messages, each after its length (16 bits, little endian); the last one is
/// what is left. Numbers and choices come off the front.
class Feed {
public:
    explicit Feed(std::span<const std::byte> bytes) : rest_(bytes) {}
    bool empty() const { return rest_.empty(); }
    std::span<const std::byte> take(std::size_t n) {
        const auto b = rest_.first(std::min(n, rest_.size()));
        rest_ = rest_.subspan(b.size());
        return b;
    }
    std::uint8_t byte() {
        const auto b = take(1);
        return b.empty() ? std::uint8_t{0} : static_cast<std::uint8_t>(b[0]);
    }
    std::span<const std::byte> message() {
        const std::size_t low = byte(), high = byte();
        return take(low | high << 8);
    }
    std::span<const std::byte> rest() { return take(rest_.size()); }

private:
    std::span<const std::byte> rest_;
};

}  // namespace eyas::fuzz
