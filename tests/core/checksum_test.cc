#include "eyas/core/checksum.hpp"

#include <catch2/catch.hpp>
#include <limits>
#include <string_view>

using namespace eyas;

namespace {
std::span<const std::byte> bytes(std::string_view s) {
    return std::as_bytes(std::span(s.data(), s.size()));
}
}  // namespace

TEST_CASE("CRC-32 has its check value, and goes on from a seed") {
    CHECK(crc32(bytes("123456789")) == 0xcbf43926u);  // the algorithm's published check value
    CHECK(crc32({}) == 0);
    CHECK(crc32(bytes("6789"), crc32(bytes("12345"))) == 0xcbf43926u);
}

TEST_CASE("XXH3-64 has the values of xxHash 0.8") {
    CHECK(hex64(xxh3({})) == "2d06800538d394c2");
    CHECK(hex64(xxh3(bytes("abc"))) == "78af5f94892f3950");
}

TEST_CASE("hex64 always writes 16 lower-case digits") {
    CHECK(hex64(0) == "0000000000000000");
    CHECK(hex64(0x0123456789abcdefull) == "0123456789abcdef");
    CHECK(hex64(std::numeric_limits<std::uint64_t>::max()) == "ffffffffffffffff");
}
