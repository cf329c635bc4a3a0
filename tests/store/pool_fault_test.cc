// Pools that refuse, fail in the middle of an answer, or are asked twice at once.
#include <future>

#include "conformance.hpp"
#include "eyas/store/memory.hpp"
#include "eyas/transport/posix.hpp"
#include "forked.hpp"
#include "scratch.hpp"
#include "served_pool.hpp"

using namespace eyas;
using conformance::eventually;
using conformance::prototype;
using conformance::Sample;
using Sockets = Transport<Posix>;
using Pool = RemotePool<Sockets>;

TEST_CASE("a put of many bytes that the quota refuses is told so, not that the link broke") {
    test::Scratch dir;
    const Tensor large = Tensor::zeros(DType::U8, {std::int64_t{64} << 20});
    const NamedTensor tensors[] = {{"input_ids", large}};
    for (const auto& listen : {std::string("eyas+tcp://127.0.0.1:0"),
                               "eyas+unix://" + (dir.path() / "socket").string()}) {
        test::Served<Sockets, Memory> pool({}, listen, {.quota_bytes = 1'000'000});
        Store<Pool> store(Pool::Options{.address = pool.server->address()});
        const auto links = store.backend().client().connections();
        for (int i = 0; i < 5; ++i)
            REQUIRE_THROWS_AS(store.put(prototype("a"), tensors), ResourceError);
        REQUIRE(store.backend().client().connections() <= links + 5);  // none was sent again
        store.put(prototype("b"), Sample(1).features());
    }
}
