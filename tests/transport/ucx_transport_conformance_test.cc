#include "eyas/transport/ucx.hpp"
#include "transport_conformance.hpp"

TEST_CASE("UCX") {
    eyas::conformance::check_transport<eyas::Ucx>([] { return "eyas+ucx://127.0.0.1:0"; });
}
