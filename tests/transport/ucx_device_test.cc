// What UCX says of memory that is not the host's, and what is made of it.
#include <catch2/catch.hpp>
#include <cstdlib>
#include <vector>

#include "eyas/transport/transport.hpp"
#include "eyas/transport/ucx.hpp"

using namespace eyas;

namespace {
/// Memory that nobody may ask for anything: it is refused before.
class NoRoom final : public DeviceRoom {
public:
    explicit NoRoom(std::string_view kind) : kind_(kind) {}
    std::string_view kind() const override { return kind_; }
    void enter() override { asked = true; }
    std::byte* allocate(std::size_t) override { return nullptr; }
    void release(std::byte*) noexcept override {}
    void copy_in(const void*, void*, std::size_t) override { asked = true; }
    void zero(void*, std::size_t) override { asked = true; }
    bool asked = false;

private:
    std::string_view kind_;
};
}  // namespace

TEST_CASE("without UCX's transports to a GPU its memory is refused, and the host's is not") {
    ::setenv("UCX_TLS", "tcp,self", 1);
    Ucx ucx({});
    CHECK_FALSE(ucx.reaches("cuda"));
    std::vector<std::byte> memory(1 << 16);
    NoRoom room("cuda");
    CHECK_THROWS_WITH(ucx.register_region(memory, room),
                      Catch::StartsWith("Ucx::register_region: UCX has no transports to memory of "
                                        "cuda"));
    CHECK_FALSE(room.asked);
    const auto region = ucx.register_region(memory);
}

TEST_CASE("of a device that UCX does not know it reaches nothing") {
    Ucx ucx({});
    NoRoom room("abacus");
    std::vector<std::byte> memory(64);
    CHECK_FALSE(ucx.reaches("abacus"));
    CHECK_THROWS_AS(ucx.register_region(memory, room), ContractError);
}
