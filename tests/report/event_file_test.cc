#include "eyas/report/event_file.hpp"

#include <catch2/catch.hpp>
#include <vector>

#include "eyas/core/file.hpp"
#include "tests/store/scratch.hpp"

using namespace eyas;

namespace {
template <class T>
T number_at(const std::string& bytes, std::size_t at) {
    T v{};
    REQUIRE(at + sizeof v <= bytes.size());
    std::memcpy(&v, bytes.data() + at, sizeof v);
    return v;
}

/// The payloads of a TFRecord file, whose lengths and checksums must be right.
std::vector<std::string> records(const std::string& file) {
    const auto masked = [](std::string_view bytes) {
        const auto c = detail::crc32c(bytes);
        return static_cast<std::uint32_t>((c >> 15 | c << 17) + 0xA282EAD8u);
    };
    std::vector<std::string> all;
    for (std::size_t at = 0; at < file.size();) {
        const auto size = number_at<std::uint64_t>(file, at);
        REQUIRE(number_at<std::uint32_t>(file, at + 8) ==
                masked(std::string_view(file).substr(at, 8)));
        all.push_back(file.substr(at + 12, size));
        REQUIRE(number_at<std::uint32_t>(file, at + 12 + size) == masked(all.back()));
        at += 16 + size;
    }
    return all;
}
}  // namespace

TEST_CASE("CRC-32C of what everybody takes the CRC of") {
    CHECK(detail::crc32c("123456789") == 0xE3069283u);
    CHECK(detail::crc32c("") == 0);
    CHECK(detail::crc32c(std::string(32, '\0')) == 0x8A9136AAu);  // RFC 3720, B.4
}

TEST_CASE("an event file is a version record and one record a point, byte for byte") {
    const test::Scratch dir;
    const EventFile::Clock::time_point when{std::chrono::seconds(1000)};
    EventFile file(dir.path(), when);
    file.scalar("a", 300, 1.5, when);
    CHECK(file.path().filename().string().starts_with("events.out.tfevents.1000."));
    const auto all = records(read_text_file(file.path()));
    REQUIRE(all.size() == 2);
    const std::string time = std::string("\x09") + detail::little_endian(1000.0);
    CHECK(all[0] == time + "\x1a\x0d" + "brain.Event:2");
    const std::string value = std::string("\x0a\x01") + "a" + "\x15" + detail::little_endian(1.5f);
    CHECK(all[1] == time + "\x10\xac\x02" + "\x2a\x0a" + "\x0a\x08" + value);
}

TEST_CASE("an event file that cannot be written is an error") {
    const test::Scratch dir;
    write_text_file(dir.path() / "file", "");
    CHECK_THROWS_AS(EventFile(dir.path() / "file"), Error);
}
