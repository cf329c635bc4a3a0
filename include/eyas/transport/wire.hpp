#pragma once
#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "eyas/core/error.hpp"

namespace eyas::detail {

static_assert(std::endian::native == std::endian::little, "the wire is little endian");

/// Builds a message head: little-endian integers and byte strings with a 32-bit length.
class WireWriter {
public:
    template <std::integral T>
    WireWriter& put(T value) {
        const auto at = bytes_.size();
        bytes_.resize(at + sizeof value);
        std::memcpy(bytes_.data() + at, &value, sizeof value);
        return *this;
    }
    WireWriter& raw(std::span<const std::byte> bytes) {
        bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
        return *this;
    }
    WireWriter& text(std::string_view s) {
        put(static_cast<std::uint32_t>(s.size()));
        return raw(std::as_bytes(std::span(s.data(), s.size())));
    }
    std::span<const std::byte> bytes() const { return bytes_; }

private:
    std::vector<std::byte> bytes_;
};

/// Reads what WireWriter wrote, from a peer that may be hostile: DataError past the end. `kind`
/// says what it is part of and `remedy` what helps; both are literals.
class WireReader {
public:
    WireReader(std::span<const std::byte> bytes, std::string where, const char* kind = "message",
               const char* remedy = "Check that both sides run the same version of eyas")
        : rest_(bytes), where_(std::move(where)), kind_(kind), remedy_(remedy) {}

    template <std::integral T>
    T get() {
        T value;
        std::memcpy(&value, take(sizeof value).data(), sizeof value);
        return value;
    }
    std::span<const std::byte> raw(std::size_t n) { return take(n); }
    std::string text(std::size_t longest = 4096) {
        const auto n = get<std::uint32_t>();
        if (n > longest) fail("a string of " + std::to_string(n) + " bytes");
        const auto b = take(n);
        return {reinterpret_cast<const char*>(b.data()), b.size()};
    }
    /// A count of things of which each takes at least `each` bytes here.
    std::size_t count(std::size_t most, std::size_t each) {
        const auto n = get<std::uint32_t>();
        if (n > most || n * each > rest_.size()) fail("a list of " + std::to_string(n));
        return n;
    }
    void end() const {
        if (!rest_.empty()) fail(std::to_string(rest_.size()) + " bytes too many");
    }
    const std::string& where() const { return where_; }
    [[noreturn]] void fail(const std::string& what) const {
        throw DataError(std::string("malformed ") + kind_ + ": " + what, where_, remedy_);
    }

private:
    std::span<const std::byte> take(std::size_t n) {
        if (n > rest_.size()) fail("it ends early");
        const auto b = rest_.first(n);
        rest_ = rest_.subspan(n);
        return b;
    }
    std::span<const std::byte> rest_;
    std::string where_;
    const char *kind_, *remedy_;
};

}  // namespace eyas::detail
