// Several samples in one row: which, where, and that nothing of them is lost on the way.
#include <catch2/catch.hpp>
#include <random>

#include "eyas/sample/stream_writer.hpp"
#include "tests/loader/loader_run.hpp"
#include "tests/store/scratch.hpp"

using namespace eyas;
using namespace eyas::test;
using Catch::Matchers::Contains;

namespace {
using Ids = std::vector<std::vector<std::string>>;

/// Samples "s:0", "s:1", … of 1 to 15 rows in a store.
struct Samples {
    std::vector<std::int64_t> lengths = {};
    FakeStore store = {};
    Manifest manifest = {};

    explicit Samples(int count, unsigned seed = 1) {
        std::mt19937 random(seed);
        for (int i = 0; i < count; ++i) add(static_cast<std::int64_t>(1 + random() % 15));
    }
    const SampleRef& add(std::int64_t rows) {
        const auto i = std::to_string(lengths.size());
        lengths.push_back(rows);
        manifest.refs.push_back(
            store.put({.sample_id = "s:" + i, .run_id = "s"},
                      FakeSample(rows, 4, static_cast<std::int64_t>(lengths.size())).tensors));
        return manifest.refs.back();
    }
    std::int64_t length(const std::string& id) const {
        return lengths[static_cast<std::size_t>(std::stoi(id.substr(2)))];
    }
};

LoaderOptions packing(std::int64_t tokens, std::int64_t batch, std::int64_t epochs = 1) {
    auto o = options(batch, 2, epochs);
    o.pack_tokens = tokens;
    return o;
}

/// The rows that the rule makes of samples in this order.
std::vector<std::vector<std::int64_t>> rows_of(const std::vector<std::int64_t>& order,
                                               const std::vector<std::int64_t>& lengths,
                                               std::int64_t tokens) {
    detail::RowPacker packer(tokens);
    for (const auto i : order) packer.add(i, lengths[static_cast<std::size_t>(i)]);
    packer.finish();
    std::vector<std::vector<std::int64_t>> rows;
    for (std::size_t r = 0; r < packer.closed().size(); ++r) {
        const auto row = packer.closed()[r];
        rows.emplace_back(row.begin(), row.end());
    }
    return rows;
}

Ids ids_of_epochs(const Samples& s, const LoaderOptions& o) {
    Ids all;
    for (std::int64_t e = 0; e < o.epochs; ++e) {
        const auto n = static_cast<std::int64_t>(s.lengths.size());
        const auto rows =
            rows_of(epoch_order(n, o.seed, e, 0, 1, o.shuffle), s.lengths, o.pack_tokens);
        const auto b = static_cast<std::size_t>(o.batch_size);
        for (std::size_t r = 0; o.drop_last ? r + b <= rows.size() : r < rows.size(); r += b) {
            all.emplace_back();
            for (std::size_t i = r; i < std::min(r + b, rows.size()); ++i)
                for (const auto sample : rows[i])
                    all.back().push_back("s:" + std::to_string(sample));
        }
    }
    return all;
}

std::vector<std::int64_t> ints(const TensorView& t) {
    const auto s = t.as<std::int64_t>();
    return {s.begin(), s.end()};
}
}  // namespace

TEST_CASE("first fit: the oldest open row with room, and a full one is closed") {
    using Rows = std::vector<std::vector<std::int64_t>>;
    std::vector<std::int64_t> order;
    const auto rows = [&](const std::vector<std::int64_t>& lengths) {
        order.clear();
        for (std::size_t i = 0; i < lengths.size(); ++i)
            order.push_back(static_cast<std::int64_t>(i));
        return rows_of(order, lengths, 10);
    };
    CHECK(rows({}) == Rows{});
    CHECK(rows({10, 3}) == Rows{{0}, {1}});
    CHECK(rows({6, 7, 3, 3, 2, 1}) == Rows{{1, 3}, {0, 2, 5}, {4}});
    // Eight are open; the ninth closes the fullest of them, the older of two that are as full.
    CHECK(rows({6, 7, 8, 8, 7, 6, 7, 7, 9}) == Rows{{2}, {0}, {1}, {3}, {4}, {5}, {6}, {7}, {8}});
}

TEST_CASE("packed batches are those of the rule, whatever the prefetch and the threads") {
    Samples s(40);
    for (const bool drop_last : {true, false})
        for (const auto& [prefetch, threads] : {std::pair{0, 1}, {2, 1}, {8, 4}}) {
            auto o = packing(32, 2, 4);
            o.prefetch = prefetch;
            o.threads = threads;
            o.drop_last = drop_last;
            s.store.delay = std::chrono::milliseconds(threads > 1 ? 1 : 0);
            Loader loader(s.store, s.manifest, o);
            const auto want = ids_of_epochs(s, o);
            CHECK(loader.batches_in_epochs(4) == static_cast<std::int64_t>(want.size()));
            CHECK(ids_of_run(loader) == want);
            CHECK(loader.position() == LoaderPosition{4, 0});
            CHECK(s.store.leased == 0);
        }
}

TEST_CASE("each sample lies in its row as alone, and is a document; the rest is padding") {
    Samples s(30, 2);
    auto o = packing(20, 3, 2);
    o.drop_last = false;
    SECTION("in memory of a ring") {}
    SECTION("cut") { o.max_len = 9; }
    Loader loader(s.store, s.manifest, o);
    std::int64_t documents = 0;
    while (const auto* b = loader.next()) {
        REQUIRE(b->tokens() <= 20);
        REQUIRE(b->document);
        const auto starts = ints(*b->document), mask = ints(b->attention_mask),
                   loss = ints(b->loss_mask);
        auto id = b->sample_ids.begin();
        std::int64_t longest = 0;
        for (std::int64_t row = 0; row < b->batch_size(); ++row) {
            const auto at = [&](std::int64_t t) {
                return static_cast<std::size_t>(row * b->tokens() + t);
            };
            std::int64_t t = 0;
            for (; t < b->tokens() && mask[at(t)]; ++documents, ++id) {
                REQUIRE(id != b->sample_ids.end());
                const auto rows = std::min(s.length(*id), o.max_len);
                const FakeSample sample(s.length(*id), 4, std::stoi(id->substr(2)) + 1);
                const SampleFeatures features[] = {{*id, sample.tensors}};
                BatchArena alone;
                collate(features, o.max_len, alone);
                for (const auto member :
                     {&Batch::input_ids, &Batch::attention_mask, &Batch::loss_mask,
                      &Batch::hidden_state, &Batch::target}) {
                    const auto &whole = b->*member, &part = alone.batch().*member;
                    const auto bytes = part.size_bytes() / static_cast<std::size_t>(rows);
                    CHECK(std::memcmp(whole.data + at(t) * bytes, part.data, part.size_bytes()) ==
                          0);
                }
                for (std::int64_t i = t; i < t + rows; ++i) REQUIRE(starts[at(i)] == t);
                t += rows;
            }
            longest = std::max(longest, t);
            for (auto p = t; p < b->tokens(); ++p) {
                CHECK(starts[at(p)] == t);
                CHECK((mask[at(p)] == 0 && loss[at(p)] == 0));
                CHECK(ints(b->input_ids)[at(p)] == 0);
                for (const auto* states : {&b->hidden_state, &b->target}) {
                    const auto bytes = states->size_bytes() /
                                       static_cast<std::size_t>(b->batch_size() * b->tokens());
                    CHECK(std::ranges::all_of(states->bytes().subspan(at(p) * bytes, bytes),
                                              [](std::byte x) { return x == std::byte{0}; }));
                }
            }
        }
        CHECK(longest == b->tokens());  // no wider than it must be
        CHECK(id == b->sample_ids.end());
    }
    CHECK(documents == 2 * 30);
}

TEST_CASE("a packed run goes on from any batch as if it had never stopped") {
    Samples s(40, 3);
    const auto o = packing(32, 2, 3);
    Loader whole(s.store, s.manifest, o);
    std::vector<LoaderPosition> places;
    Ids all;
    for (auto p = whole.position(); const auto* b = whole.next(); p = whole.position()) {
        places.push_back(p);
        all.push_back(b->sample_ids);
    }
    REQUIRE(places.back().epoch == 2);
    for (std::size_t i = 0; i < all.size(); ++i) {
        Loader loader(s.store, s.manifest, o);
        loader.seek(places[i]);
        CHECK(loader.position() == places[i]);
        CHECK(ids_of_run(loader) == Ids(all.begin() + static_cast<long>(i), all.end()));
    }
    Loader loader(s.store, s.manifest, o);
    const auto first = loader.batches_per_epoch();
    loader.seek({0, first});
    CHECK(loader.position() == LoaderPosition{1, 0});
    CHECK_THROWS_AS(loader.seek({0, first + 1}), ContractError);
    CHECK_THROWS_AS(loader.seek({3, 1}), ContractError);
}

TEST_CASE("ranks share an epoch's rows: disjoint, equally many, and those of one rank together") {
    Samples s(50, 4);
    auto o = packing(20, 2);
    for (const bool drop_last : {true, false}) {
        o.drop_last = drop_last;
        const auto n = static_cast<std::int64_t>(s.lengths.size());
        const auto rows = rows_of(epoch_order(n, 0, 0), s.lengths, 20);
        for (std::int64_t world : {2, 3}) {
            std::vector<Ids> of_ranks;
            std::multiset<std::string> seen;
            for (std::int64_t rank = 0; rank < world; ++rank) {
                auto mine = o;
                mine.rank = rank;
                mine.world = world;
                Loader loader(s.store, s.manifest, mine);
                of_ranks.push_back(ids_of_run(loader));
                CHECK(of_ranks.back().size() == of_ranks.front().size());
                CHECK(static_cast<std::int64_t>(of_ranks.back().size()) ==
                      loader.batches_per_epoch());
                for (const auto& batch : of_ranks.back()) seen.insert(batch.begin(), batch.end());
            }
            std::set<std::string> once(seen.begin(), seen.end());
            if (drop_last) {
                CHECK(once.size() == seen.size());
                const auto whole = rows.size() / static_cast<std::size_t>(2 * world);
                CHECK(of_ranks[0].size() == whole);
            } else {
                CHECK(once.size() == 50);  // all of them; at the end some rows come twice
            }
            // Batch 0 of all ranks: the first rows, one after the other.
            std::multiset<std::string> first, want;
            for (const auto& ids : of_ranks) first.insert(ids[0].begin(), ids[0].end());
            for (std::size_t r = 0; r < static_cast<std::size_t>(2 * world); ++r)
                for (const auto sample : rows[r]) want.insert("s:" + std::to_string(sample));
            CHECK(first == want);
        }
    }
}

TEST_CASE("a packed batch's samples are those that acknowledge() consumes") {
    Samples s(20, 5);
    s.store.consume_once = true;
    const auto o = packing(32, 1);
    Loader loader(s.store, s.manifest, o);
    const auto one = loader.next()->sample_ids, two = loader.next()->sample_ids;
    const auto at = loader.position();
    loader.next();
    loader.acknowledge(at, 2);
    auto want = one;
    want.insert(want.end(), two.begin(), two.end());
    CHECK(s.store.released == want);
    CHECK(want.size() > 2);
}

TEST_CASE("packed batches fit the ring, whose slots are full rows") {
    Samples s(20, 6);
    auto o = packing(32, 2);
    o.drop_last = false;
    const auto slot = detail::largest_batch_bytes(s.manifest, o);
    CHECK(slot == BatchArena::bytes_for(2, 32, 4, DType::BF16, true));
    CHECK(slot > BatchArena::bytes_for(2, 32, 4, DType::BF16));
    Loader loader(s.store, s.manifest, o);
    REQUIRE(s.store.regions.size() == 1);
    const auto ring = s.store.regions[0];
    while (const auto* b = loader.next())
        for (const auto* t : {&b->input_ids, &b->target, &*b->document}) {
            CHECK(t->data >= ring.data());
            CHECK(t->data + t->size_bytes() <= ring.data() + ring.size());
        }
}

TEST_CASE("a sample that is longer than a row is cut to it, none is left out") {
    Samples s(0);
    for (const std::int64_t rows : {30, 4, 30}) s.add(rows);
    auto o = packing(16, 1);
    o.shuffle = false;
    Loader loader(s.store, s.manifest, o);
    CHECK(loader.next()->tokens() == 16);
    CHECK(loader.next()->tokens() == 16);
    const auto* last = loader.next();
    CHECK(last->sample_ids == std::vector<std::string>{"s:1"});
    CHECK(last->tokens() == 4);
    CHECK(loader.next() == nullptr);
}

TEST_CASE("what cannot be packed is refused with a remedy") {
    Samples s(5, 7);
    auto o = packing(32, 1);
    SECTION("a length that only reading would tell") {
        s.manifest.refs[3].feature_specs.clear();
        CHECK_THROWS_AS(Loader(s.store, s.manifest, o), DataError);
        CHECK_THROWS_WITH(Loader(s.store, s.manifest, o), Contains("s:3") && Contains("length"));
    }
    SECTION("fewer rows than a batch") {
        o.batch_size = 9;
        CHECK_THROWS_AS(Loader(s.store, s.manifest, o), ContractError);
        CHECK_THROWS_WITH(Loader(s.store, s.manifest, o), Contains("packed rows"));
    }
    SECTION("no size") {
        o.pack_tokens = -1;
        CHECK_THROWS_WITH(Loader(s.store, s.manifest, o), Contains("pack_tokens -1"));
    }
}

TEST_CASE("held-out samples are not packed, and cut as in training") {
    auto o = packing(32, 2, 3);
    o.max_len = 64;
    const auto held_out = held_out_options(o);
    CHECK(held_out.pack_tokens == 0);
    CHECK(held_out.max_len == 32);
    CHECK(held_out.epochs == 1);
    CHECK_FALSE((held_out.shuffle || held_out.drop_last));
}

TEST_CASE("a followed stream is packed as the finished manifest, from any batch on") {
    Samples s(60, 8);
    const Scratch scratch;
    const auto path = scratch.path() / "s.jsonl";
    ManifestStreamWriter writer(path, {.durable = false, .producer = "a test"});
    auto o = packing(20, 2);
    o.shuffle = false;
    o.world = 2;
    o.rank = 1;
    Loader whole(s.store, s.manifest, o);
    const auto want = ids_of_run(whole);
    REQUIRE(want.size() > 3);
    FollowedStream stream(path);
    REQUIRE(stream.open());
    for (const int threads : {1, 3}) {
        auto mine = o;
        mine.threads = threads;
        Loader loader(s.store, stream, mine);
        CHECK(loader.batches_per_epoch() == 0);
        CHECK(loader.batches_in_epochs(1) == 0);
        CHECK(loader.at_hand(1) == (threads > 1));  // the stream was read by then
        CHECK_FALSE(loader.at_hand(1000));
        std::thread later([&] {
            if (threads > 1) return;  // they are there by then
            for (const auto& ref : s.manifest.refs) writer.append(ref);
            writer.finish();
        });
        CHECK(ids_of_run(loader) == want);
        later.join();
        for (std::size_t at = 0; at <= want.size(); ++at) {
            loader.seek({0, static_cast<std::int64_t>(at)});
            CHECK(ids_of_run(loader) == Ids(want.begin() + static_cast<long>(at), want.end()));
        }
    }
}

TEST_CASE("a stream's sample of unknown length is told after the batches before it") {
    Samples s(30, 9);
    const Scratch scratch;
    ManifestStreamWriter writer(scratch.path() / "s.jsonl", {.durable = false});
    for (const auto& ref : s.manifest.refs) writer.append(ref);
    auto unknown = s.add(5);
    unknown.feature_specs.clear();
    writer.append(unknown);
    FollowedStream stream(scratch.path() / "s.jsonl");
    stream.open();
    auto o = packing(20, 1);
    o.shuffle = false;
    Loader loader(s.store, stream, o);
    int batches = 0;
    std::string told;
    try {
        while (loader.next()) ++batches;
    } catch (const DataError& e) {
        told = e.what();
    }
    CHECK(batches > 3);
    CHECK_THAT(told, Contains("s:30") && Contains("length"));
}
