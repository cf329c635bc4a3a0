// Requests and answers that are repeated, cut, flipped or do not fit.
#include <random>

#include "conformance.hpp"
#include "eyas/store/memory.hpp"
#include "eyas/transport/posix.hpp"
#include "served_pool.hpp"

using namespace eyas;
using conformance::prototype;
using conformance::Sample;
using Sockets = Transport<Posix>;
using Served = test::Served<Sockets, Memory>;
using Pool = RemotePool<Sockets>;

namespace {
/// A request as bytes, and its parts.
struct Spoken {
    std::vector<std::byte> head;
    std::vector<std::vector<std::byte>> parts = {};
};

Spoken put_of(const Sample& a, std::uint64_t token) {
    detail::WireWriter w;
    w.put(static_cast<std::uint8_t>(detail::Operation::Put));
    detail::PutRecord p{.token = token, .sample = "a"};
    Spoken s;
    for (const auto& t : a.features()) {
        p.tensors.push_back({t.name, t.tensor.dtype, t.tensor.shape, xxh3(t.tensor.bytes())});
        s.parts.emplace_back(t.tensor.bytes().begin(), t.tensor.bytes().end());
    }
    p.write(w);
    s.head.assign(w.bytes().begin(), w.bytes().end());
    return s;
}

/// The answer's head; throws what the pool answered.
std::vector<std::byte> say(Sockets::Client& client, const Spoken& s) {
    const std::vector<std::span<const std::byte>> parts(s.parts.begin(), s.parts.end());
    std::vector<std::byte> answer;
    client.call(
        {.head = s.head, .parts = parts, .answer = [&](InMessage& m, auto head, const auto& take) {
             answer.assign(head.begin(), head.end());
             std::vector<std::vector<std::byte>> in;
             for (const auto n : m.parts) in.emplace_back(n);
             const std::vector<std::span<std::byte>> into(in.begin(), in.end());
             if (!into.empty()) take(into);
         }});
    return answer;
}
}  // namespace

TEST_CASE("a put that comes again with its token is not done twice") {
    Served pool({}, "eyas+tcp://127.0.0.1:0");
    Sockets sockets;
    const auto client = sockets.client(pool.server->address(), {});
    const auto first = say(*client, put_of(Sample(1), 77));
    REQUIRE(say(*client, put_of(Sample(1), 77)) == first);  // as if that answer had been lost
    REQUIRE(pool.store.backend().objects().at(0).key.generation == 1);
    REQUIRE(say(*client, put_of(Sample(1), 78)) != first);
    REQUIRE(pool.store.backend().objects().at(0).key.generation == 2);
}

TEST_CASE("a put whose tensors together pass the quota is refused before its bytes are taken") {
    Served pool({}, "eyas+tcp://127.0.0.1:0", {.quota_bytes = 100'000});
    Sockets sockets;
    const auto client = sockets.client(pool.server->address(), {});
    const auto put = put_of(Sample(1, 7000), 1);  // each of the two is less
    REQUIRE(put.parts[0].size() < 100'000);
    REQUIRE_THROWS_WITH(say(*client, put), Catch::Contains("112000 bytes pass the quota"));
    REQUIRE(pool.store.health().resident_objects == 0);
}

TEST_CASE("bytes that are not those announced are not stored") {
    Served pool({}, "eyas+tcp://127.0.0.1:0");
    Sockets sockets;
    const auto client = sockets.client(pool.server->address(), {});
    auto bad = put_of(Sample(1), 1);
    bad.parts[0][3] ^= std::byte{4};
    REQUIRE_THROWS_AS(say(*client, bad), DataError);
    REQUIRE(pool.store.health().resident_objects == 0);
}

TEST_CASE("requests cut at every byte and flipped at random are refused; the pool lives on") {
    Served pool({}, "eyas+tcp://127.0.0.1:0");
    Store<Pool> store(pool.client());
    store.put(prototype("b"), Sample(5).features());
    Sockets sockets;
    const auto client = sockets.client(pool.server->address(), {});
    const auto spoken = [](detail::Operation o, const auto& more) {
        detail::WireWriter w;
        w.put(static_cast<std::uint8_t>(o));
        more(w);
        return Spoken{{w.bytes().begin(), w.bytes().end()}};
    };
    const auto key = [](detail::WireWriter& w) { detail::write_key(w, {"b", 1, ""}); };
    const auto opened = say(*client, spoken(detail::Operation::Open, key));
    std::uint64_t lease = 0;
    std::memcpy(&lease, opened.data(), sizeof lease);
    const std::vector<Spoken> good{
        put_of(Sample(1), 9),
        spoken(detail::Operation::Open, key),
        spoken(detail::Operation::Read,
               [&](auto& w) {
                   w.put(lease).put(std::uint32_t{2}).put(std::uint32_t{0}).put(std::uint32_t{1});
               }),
        spoken(detail::Operation::Close,
               [](auto& w) { w.put(std::uint32_t{1}).put(std::uint64_t{3}); }),
        spoken(detail::Operation::Objects, [](auto&) {}),
        spoken(detail::Operation::Uri, key)};
    for (const auto& s : good) {
        REQUIRE_NOTHROW(say(*client, s));
        for (std::size_t cut = 0; cut < s.head.size(); ++cut) {
            auto bad = s;
            bad.head.resize(cut);
            REQUIRE_THROWS_AS(say(*client, bad), DataError);
        }
        auto longer = s;
        longer.head.push_back(std::byte{0});
        REQUIRE_THROWS_AS(say(*client, longer), DataError);
    }
    std::mt19937 random(3);
    for (int round = 0; round < 2000; ++round) {
        auto bad = good[random() % good.size()];
        bad.head[random() % bad.head.size()] ^= static_cast<std::byte>(1u << random() % 8);
        try {
            say(*client, bad);  // may by chance be another good one, also one that erases
        } catch (const Error&) {
        }
    }
    const auto after = store.put(prototype("z"), Sample(6).features());
    conformance::require_content(store, after, Sample(6));
}

TEST_CASE("answers cut at every byte are refused by the client") {
    detail::WireWriter w;
    detail::OpenedRecord{
        .lease = 3, .tensors = {{"a", DType::BF16, Shape{2, 3}, 1, 64}}, .file_bytes = 76}
        .write(w);
    const auto read = [](std::span<const std::byte> bytes) {
        detail::WireReader r(bytes, "pool");
        return detail::OpenedRecord::read(r);
    };
    REQUIRE(read(w.bytes()).tensors.at(0).shape == Shape{2, 3});
    for (std::size_t cut = 0; cut < w.bytes().size(); ++cut)
        REQUIRE_THROWS_AS(read(w.bytes().first(cut)), DataError);
    detail::WireWriter outside;  // a tensor beyond its file
    detail::OpenedRecord{
        .lease = 3, .tensors = {{"a", DType::BF16, Shape{2, 3}, 1, 65}}, .file_bytes = 76}
        .write(outside);
    REQUIRE_THROWS_AS(read(outside.bytes()), DataError);
    detail::WireWriter list;
    detail::write_objects(list, {{{"a", 1, ""}, 5, 0.5}, {{"b", 2, ""}, 6, 1.5}});
    REQUIRE(detail::read_objects(list.bytes(), 2, "pool").size() == 2);
    REQUIRE_THROWS_AS(detail::read_objects(list.bytes(), 3, "pool"), DataError);
    REQUIRE_THROWS_AS(detail::read_objects(list.bytes(), 1, "pool"), DataError);
}
