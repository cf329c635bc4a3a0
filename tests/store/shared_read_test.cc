// Reads of many bytes, which several threads share.
#include <map>

#include "conformance.hpp"
#include "eyas/store/shared_directory.hpp"
#include "eyas/store/store.hpp"
#include "scratch.hpp"

using namespace eyas;
using conformance::prototype;

namespace {
/// Three features whose sizes are no multiples of what a thread copies at a time.
struct Large {
    Tensor first = Tensor::zeros(DType::U8, {(std::int64_t{9} << 20) + 77}),
           second = Tensor::zeros(DType::U8, {(std::int64_t{5} << 20) + 1}),
           third = Tensor::zeros(DType::U8, {3});

    Large() {
        std::uint32_t x = 1;
        for (auto* t : {&first, &second, &third})
            for (auto& b : t->mutable_view().bytes())
                b = static_cast<std::byte>((x = x * 1664525u + 1013904223u) >> 24);
    }
    std::vector<NamedTensor> features() const {
        return {{"input_ids", third}, {"hidden_state", first}, {"target", second}};
    }
};

/// Memory for what is read, in the order of the features.
struct Place {
    std::vector<Tensor> memory;
    std::vector<NamedBuffer> buffers;

    explicit Place(const std::vector<NamedTensor>& features) {
        for (const auto& f : features) {
            memory.push_back(Tensor::zeros(f.tensor.dtype, f.tensor.shape));
            buffers.push_back({f.name, memory.back().mutable_view()});
        }
    }
};
}  // namespace

TEST_CASE("every byte arrives, whatever the number of threads") {
    const Large large;
    const auto features = large.features();
    for (const auto payload : {PayloadFormat::Safetensors, PayloadFormat::Ckpt})
        for (const std::size_t threads : {0u, 1u, 2u, 3u, 5u}) {
            test::Scratch dir;
            Store<SharedDirectory> store(
                {.root = dir.path(), .files = {.payload = payload, .durable = false}},
                {.read_threads = threads});
            const auto ref = store.put(prototype("a"), features);
            const auto lease = store.acquire(ref);
            Place place(features);
            store.read_into(lease, place.buffers);
            for (std::size_t i = 0; i < features.size(); ++i)
                REQUIRE(
                    std::ranges::equal(place.memory[i].view().bytes(), features[i].tensor.bytes()));
            REQUIRE(store.health().bytes_read == static_cast<std::uint64_t>(ref.estimated_bytes));
        }
}

TEST_CASE("whatever helpers copied before, the sum is that of the bytes that arrived") {
    Large large;
    StoredObject object{{{"hidden_state", large.first}}, {}, {}};
    const ObjectKey key{"a", 1, {}};
    detail::ExpectedSums sums;
    sums.xxh3 = xxh3(large.first.view().bytes());
    Tensor to = Tensor::zeros(DType::U8, large.first.shape());
    const auto read = [&] {
        return detail::FeatureRead(object, 0, to.mutable_view().bytes(), sums, key);
    };
    const auto arrived = [&] {
        return std::ranges::equal(to.view().bytes(), large.first.view().bytes());
    };
    auto alone = read();
    alone.run();
    REQUIRE(arrived());

    to = Tensor::zeros(DType::U8, large.first.shape());
    auto helped = read();
    REQUIRE(helped.pieces() == 5);
    helped.help();
    REQUIRE(arrived());  // all of it, by the helper
    helped.run();

    // A byte that was bad when it was copied, and is good again when the sum is made.
    auto& byte = large.first.mutable_view().bytes()[large.first.view().size_bytes() - 5];
    const auto good = byte;
    byte ^= std::byte{2};
    auto late = read();
    late.help();
    byte = good;
    REQUIRE_THROWS_AS(late.run(), DataError);
}

TEST_CASE("a byte that changed is noticed in every part, and other samples are read") {
    test::Scratch dir;
    const Large large;
    const auto features = large.features();
    const SharedDirectory::Options where{.root = dir.path(), .files = {.durable = false}};
    Store<SharedDirectory> store(where);
    const auto good = store.put(prototype("good"), features),
               bad = store.put(prototype("bad"), features);
    const auto bad_lease = store.acquire(bad), good_lease = store.acquire(good);
    const auto& object = store.stored(bad_lease);
    for (const auto& t : object.tensors)
        for (const auto at :
             {std::size_t{0}, t.tensor.size_bytes() / 2, t.tensor.size_bytes() - 1}) {
            INFO(t.name << " " << at);
            const auto offset =
                t.tensor.data - object.file.mapping.data() + static_cast<std::ptrdiff_t>(at);
            const auto path = "/proc/self/fd/" + std::to_string(object.file.descriptor);
            const detail::Fd file(::open(path.c_str(), O_WRONLY));
            const auto was = t.tensor.data[at], other = was ^ std::byte{16};
            REQUIRE(::pwrite(file.get(), &other, 1, offset) == 1);
            Place one(features), two(features);
            const Store<SharedDirectory>::ReadRequest requests[] = {{&bad_lease, one.buffers},
                                                                    {&good_lease, two.buffers}};
            const auto status = store.read_each(requests);
            REQUIRE(::pwrite(file.get(), &was, 1, offset) == 1);
            REQUIRE(!status[1]);
            REQUIRE(std::ranges::equal(two.memory[1].view().bytes(), large.first.view().bytes()));
            REQUIRE(status[0]);
            REQUIRE_THROWS_AS(std::rethrow_exception(status[0]), DataError);
        }
}
