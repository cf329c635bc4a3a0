#include "eyas/core/file_name.hpp"

#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>
#include <set>
#include <string>

#include "scratch.hpp"

using namespace eyas;

namespace {
void check_round_trip(const std::string& id) {
    const auto name = encode_file_name(id);
    CAPTURE(id, name);
    CHECK(decode_file_name(name) == id);
    CHECK(name.find_first_not_of("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                                 "_-:.%") == std::string::npos);
    CHECK(name.front() != '.');
}
}  // namespace

TEST_CASE("every byte goes there and back, first in the id and after another") {
    std::set<std::string> first, second;
    for (int c = 0; c < 256; ++c) {
        const std::string byte(1, static_cast<char>(c));
        check_round_trip(byte);
        check_round_trip("a" + byte + "z");
        first.insert(encode_file_name(byte));
        second.insert(encode_file_name("a" + byte));
    }
    CHECK(first.size() == 256);  // no two ids share a name
    CHECK(second.size() == 256);
}

TEST_CASE("plain ids keep the name that the reference gives them") {
    CHECK(encode_file_name("run:00000000") == "run:00000000");
    CHECK(encode_file_name("a.b-c_D9") == "a.b-c_D9");
}

TEST_CASE("no hostile id leaves the directory") {
    const test::Scratch scratch;
    for (const std::string id : {"..", ".", "../x", "../../etc/passwd", "/etc/passwd", "a/../../b",
                                 "a\\..\\b", "~/x", "%2e%2e%2f", "%", "%%", ".hidden", "a\nb",
                                 "a b", "$(reboot)", "-rf", "*", "\xff\xfe", "..%00/x"}) {
        check_round_trip(id);
        const auto path = scratch.path() / encode_file_name(id);
        CHECK(path.lexically_normal().parent_path() == scratch.path().lexically_normal());
        std::ofstream(path) << "x";
        CHECK(std::filesystem::is_regular_file(path));
    }
    const std::string with_zero("a\0b", 3);
    check_round_trip(with_zero);
    CHECK(encode_file_name(with_zero) == "a%00b");
}

TEST_CASE("an id that is empty or too long once encoded is refused") {
    CHECK_THROWS_AS(encode_file_name(""), ContractError);
    CHECK(encode_file_name(std::string(200, 'a')).size() == 200);
    CHECK_THROWS_AS(encode_file_name(std::string(201, 'a')), ContractError);
    CHECK(encode_file_name(std::string(66, '/')).size() == 198);
    CHECK_THROWS_AS(encode_file_name(std::string(67, '/')), ContractError);
}

TEST_CASE("a broken escape is not a name of ours") {
    for (const std::string name : {"%", "%4", "a%", "a%4", "%4g", "%G4", "%2f", "% 2"})
        CHECK_THROWS_AS(decode_file_name(name), DataError);
}
