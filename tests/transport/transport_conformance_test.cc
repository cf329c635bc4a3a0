#include "transport_conformance.hpp"

#include "eyas/transport/posix.hpp"

TEST_CASE("sockets, tcp") {
    eyas::conformance::check_transport<eyas::Posix>([] { return "eyas+tcp://127.0.0.1:0"; });
}
TEST_CASE("sockets, unix") {
    eyas::test::Scratch dir;
    int n = 0;
    eyas::conformance::check_transport<eyas::Posix>(
        [&] { return "eyas+unix://" + (dir.path() / std::to_string(++n)).string(); });
}
