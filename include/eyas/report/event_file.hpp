#pragma once
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

#include "eyas/core/error.hpp"
#include "eyas/core/file.hpp"

namespace eyas {

namespace detail {

/// CRC-32C (Castagnoli), as record files of TensorBoard have it.
inline std::uint32_t crc32c(std::string_view bytes) {
    static constexpr auto table = [] {
        std::array<std::uint32_t, 256> t{};
        for (std::uint32_t i = 0; i < 256; ++i) {
            std::uint32_t c = i;
            for (int k = 0; k < 8; ++k) c = (c >> 1) ^ (c & 1 ? 0x82F63B78u : 0u);
            t[i] = c;
        }
        return t;
    }();
    std::uint32_t c = ~0u;
    for (const char b : bytes) c = (c >> 8) ^ table[(c ^ static_cast<unsigned char>(b)) & 0xFF];
    return ~c;
}

/// A number's bytes, least significant first.
template <class T>
std::string little_endian(T value) {
    std::string bytes(sizeof value, '\0');
    std::memcpy(bytes.data(), &value, sizeof value);
    if constexpr (std::endian::native == std::endian::big) std::ranges::reverse(bytes);
    return bytes;
}

/// Fields of a protobuf message, wire types 0, 1, 2 and 5.
class ProtoWriter {
public:
    ProtoWriter& number(unsigned field, std::uint64_t value) {
        varint(field << 3);
        varint(value);
        return *this;
    }
    ProtoWriter& real(unsigned field, double value) {
        varint(field << 3 | 1);
        bytes_ += little_endian(value);
        return *this;
    }
    ProtoWriter& real(unsigned field, float value) {
        varint(field << 3 | 5);
        bytes_ += little_endian(value);
        return *this;
    }
    ProtoWriter& text(unsigned field, std::string_view value) {
        varint(field << 3 | 2);
        varint(value.size());
        bytes_ += value;
        return *this;
    }
    const std::string& bytes() const { return bytes_; }

private:
    void varint(std::uint64_t v) {
        for (; v >= 0x80; v >>= 7) bytes_ += static_cast<char>(v | 0x80);
        bytes_ += static_cast<char>(v);
    }
    std::string bytes_;
};

}  // namespace detail

/// Scalars over steps for TensorBoard: an event file (TFRecord of tensorflow.Event messages) named
/// events.out.tfevents.{time}.{host}.{pid}.eyas in a run's directory; each run() of a resumed
/// training has its own, TensorBoard shows them as one curve. Appended and flushed record by
/// record, so a killed run leaves whole records. One thread.
class EventFile {
public:
    using Clock = std::chrono::system_clock;

    /// Throws ResourceError when the file cannot be made or written.
    explicit EventFile(const std::filesystem::path& dir, Clock::time_point now = Clock::now())
        : path_(dir / name(now)) {
        eyas::create_directories(dir);
        file_.open(path_, std::ios::binary | std::ios::app);
        append(event(now).text(3, "brain.Event:2").bytes());
    }

    /// A point of the curve `tag`. Throws ResourceError when it cannot be written.
    void scalar(std::string_view tag, std::int64_t step, double value,
                Clock::time_point now = Clock::now()) {
        const auto point =
            detail::ProtoWriter().text(1, tag).real(2, static_cast<float>(value)).bytes();
        append(event(now)
                   .number(2, static_cast<std::uint64_t>(step))
                   .text(5, detail::ProtoWriter().text(1, point).bytes())
                   .bytes());
    }

    const std::filesystem::path& path() const { return path_; }

private:
    static std::string name(Clock::time_point now) {
        char host[256] = "host";
        ::gethostname(host, sizeof host - 1);
        const auto seconds =
            std::chrono::duration_cast<std::chrono::seconds>(now.time_since_epoch()).count();
        return "events.out.tfevents." + std::to_string(seconds) + "." + host + "." +
               std::to_string(::getpid()) + ".eyas";
    }
    static detail::ProtoWriter event(Clock::time_point now) {
        detail::ProtoWriter e;
        e.real(1, std::chrono::duration<double>(now.time_since_epoch()).count());
        return e;
    }
    static std::string masked(std::string_view bytes) {
        const auto c = detail::crc32c(bytes);
        return detail::little_endian((c >> 15 | c << 17) + 0xA282EAD8u);
    }
    void append(const std::string& event) {
        const auto size = detail::little_endian(std::uint64_t{event.size()});
        file_ << size << masked(size) << event << masked(event) << std::flush;
        if (!file_) detail::throw_errno("cannot write", path_);
    }

    std::filesystem::path path_;
    std::ofstream file_;
};

}  // namespace eyas
