#pragma once
#include <catch2/catch.hpp>
#include <chrono>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "eyas/core/json.hpp"
#include "eyas/store/store.hpp"

// What every store must do, whatever its backend. A user's own backend is tested by
//   eyas::conformance::check_store<MyBackend>([] { return MyBackend::Options{...}; });
// where the function gives the options of a fresh, empty place at each call. Beside it:
// conformance_fault.hpp (the backend fails), conformance_process.hpp (several processes share the
// place), ../transport/transport_conformance.hpp (peers fail). docs/testing.md has the table of
// what is demanded and where it is tested; the numbers here are its lines.
namespace eyas::conformance {

/// One sample: input_ids [n] and hidden_state [1, n, 4], every value telling `seed` and place.
struct Sample {
    Tensor ids, hidden;
    explicit Sample(std::int64_t seed, std::int64_t n = 9)
        : ids(DType::I64, {n}), hidden(DType::BF16, {1, n, 4}) {
        for (std::int64_t i = 0; i < n; ++i)
            ids.as<std::int64_t>()[static_cast<std::size_t>(i)] = 100 * seed + i;
        for (std::int64_t i = 0; i < 4 * n; ++i)
            hidden.as<BFloat16>()[static_cast<std::size_t>(i)] =
                BFloat16(static_cast<float>(seed + i % 31));
    }
    std::vector<NamedTensor> features() const {
        return {{"input_ids", ids}, {"hidden_state", hidden}};
    }
    std::uint64_t bytes() const { return ids.view().size_bytes() + hidden.view().size_bytes(); }
};

inline SampleRef prototype(const std::string& id) {
    return {.sample_id = id, .run_id = "conformance"};
}

inline bool same_bytes(const TensorView& a, const TensorView& b) {
    return a.dtype == b.dtype && a.shape == b.shape &&
           std::memcmp(a.data, b.data, a.size_bytes()) == 0;
}

template <class S>
void require_content(S& store, const SampleRef& ref, const Sample& want) {
    auto lease = store.acquire(ref);
    Tensor ids = Tensor::zeros(DType::I64, want.ids.shape()),
           hidden = Tensor::zeros(DType::BF16, want.hidden.shape());
    const NamedBuffer buffers[] = {{"input_ids", ids.mutable_view()},
                                   {"hidden_state", hidden.mutable_view()}};
    store.read_into(lease, buffers);
    REQUIRE(same_bytes(ids, want.ids));
    REQUIRE(same_bytes(hidden, want.hidden));
    for (const auto& t : store.view(lease))
        REQUIRE(same_bytes(t.tensor, t.name == "input_ids" ? want.ids.view() : want.hidden.view()));
}

template <StoreBackend B>
class Suite {
public:
    using Make = std::function<typename B::Options()>;
    explicit Suite(Make make) : make_(std::move(make)) {}

    void content() {
        Store<B> store(make_());
        const Sample a(1), b(2, 1000);
        const auto ra = store.put(prototype("a"), a.features()),
                   rb = store.put(prototype("b"), b.features());
        require_content(store, ra, a);  // 1, 2: bit exact, one object per tensor
        require_content(store, rb, b);
        REQUIRE(ra.generation() == 1);
        REQUIRE(ra.spec("hidden_state").shape == a.hidden.shape());
        REQUIRE(ra.estimated_bytes == static_cast<std::int64_t>(a.bytes()));
        REQUIRE(store.health().resident_objects == 2);
        const auto text = ref_to_json(ra).dump();  // 7: metadata, and that is all
        REQUIRE(text.size() < 2000);
        REQUIRE(ref_from_json(parse_json<OrderedJson>(text, "ref"), "ref") == ra);
    }

    void wrong_calls() {  // 6
        Store<B> store(make_());
        const Sample a(1);
        REQUIRE_THROWS_AS(store.put(prototype("a"), {}), ContractError);
        REQUIRE_THROWS_AS(store.put(prototype(""), a.features()), ContractError);
        auto twice = a.features();
        twice.push_back(twice[0]);
        REQUIRE_THROWS_AS(store.put(prototype("a"), twice), ContractError);
        REQUIRE(store.health().resident_objects == 0);
        const auto ref = store.put(prototype("a"), a.features());
        const auto lease = store.acquire(ref);
        Tensor small(DType::I64, {1});
        const NamedBuffer unknown[] = {{"nothing", small.mutable_view()}},
                          short_one[] = {{"input_ids", small.mutable_view()}};
        REQUIRE_THROWS_AS(store.read_into(lease, unknown), ContractError);
        REQUIRE_THROWS_AS(store.read_into(lease, short_one), ContractError);
        auto other = ref;
        other.feature_specs[0].shape = Shape{3};
        REQUIRE_THROWS_AS(store.acquire(other), DataError);
        auto given_back = store.acquire(ref);  // 29: nothing to read before a lease or after it
        store.release(std::move(given_back));
        REQUIRE_THROWS_AS(store.view(given_back), ContractError);
        REQUIRE_THROWS_AS(store.read_into(given_back, short_one), ContractError);
    }

    void isolation() {  // 3: neither the source nor what was read is the store's memory
        Store<B> store(make_());
        Sample a(1);
        const auto ref = store.put(prototype("a"), a.features());
        std::memset(a.ids.mutable_view().data, 0, 8);
        require_content(store, ref, Sample(1));
        {
            auto lease = store.acquire(ref);
            Tensor ids(DType::I64, a.ids.shape());
            const NamedBuffer b[] = {{"input_ids", ids.mutable_view()}};
            store.read_into(lease, b);
            std::memset(ids.mutable_view().data, 0, 8);
        }
        require_content(store, ref, Sample(1));
    }

    void generations() {  // 8, 10, 11, 12
        Store<B> store(make_(), {.retain_on_release = false});
        const auto r1 = store.put(prototype("a"), Sample(1).features());
        auto lease1 = store.acquire(r1), lease1b = store.acquire(r1);
        const auto r2 = store.put(prototype("a"), Sample(2).features());
        REQUIRE(r2.generation() == 2);
        REQUIRE_THROWS_AS(store.acquire(r1), StaleReferenceError);
        REQUIRE(same_bytes(store.view(lease1)[0].tensor,
                           Sample(1).ids));  // a lease outlives replacement
        auto lease2 = store.acquire(r2);
        store.release(std::move(lease1));
        store.release(std::move(lease1));  // 9: a second release does nothing
        require_content(store, r2, Sample(2));
        store.release(std::move(lease2));
        store.release(std::move(lease1b));
        REQUIRE(store.health().resident_objects == 0);
        REQUIRE(store.health().active_leases == 0);
        REQUIRE_THROWS_AS(store.acquire(r2), StaleReferenceError);  // 13: dead at once
    }

    void retention() {  // 14, 15, 16
        Store<B> keeping(make_());
        const auto kept = keeping.put(prototype("a"), Sample(1).features());
        for (int epoch = 0; epoch < 3; ++epoch) keeping.release(keeping.acquire(kept));
        require_content(keeping, kept, Sample(1));

        Store<B> once(make_(), {.retain_on_release = false});
        const auto ref = once.put(prototype("b"), Sample(2).features());
        const auto baseline = once.health();
        for (int i = 0; i < 20; ++i) (void)once.acquire(ref);  // aborted: destroyed without release
        REQUIRE(once.health().resident_bytes == baseline.resident_bytes);
        REQUIRE(once.health().aborts == 20);
        auto first = once.acquire(ref), second = once.acquire(ref);
        once.release(std::move(first));
        require_content(once, ref, Sample(2));  // the last release frees, not the first
        once.release(std::move(second));
        REQUIRE(once.health().resident_objects == 0);
        for (int i = 0; i < 50; ++i)
            once.release(once.acquire(once.put(prototype("c"), Sample(i).features())));
        REQUIRE(once.health().resident_bytes == 0);

        // consume(): the same without a lease.
        REQUIRE_FALSE(keeping.consume(kept));
        require_content(keeping, kept, Sample(1));
        const auto used = once.put(prototype("d"), Sample(3).features());
        {
            const auto held = once.acquire(used);
            REQUIRE_FALSE(once.consume(used));  // freed when nobody holds it
            REQUIRE(once.health().resident_objects == 1);
        }
        REQUIRE(once.health().resident_objects == 0);
        REQUIRE(once.consume(used));  // it is gone already
        const auto older = once.put(prototype("d"), Sample(4).features());
        const auto newer = once.put(prototype("d"), Sample(5).features());
        REQUIRE(once.consume(older));
        require_content(once, newer, Sample(5));
        REQUIRE(once.consume(newer));
        REQUIRE(once.health().resident_objects == 0);
        REQUIRE_THROWS_AS(once.acquire(newer), StaleReferenceError);
    }

    void quota() {  // 17
        const Sample a(1);
        Store<B> store(make_(), {.quota_bytes = 100'000});
        const Sample large(2, 20'000);
        store.put(prototype("a"), a.features());
        const auto before = store.health().resident_bytes;
        REQUIRE_THROWS_AS(store.put(prototype("b"), large.features()), ResourceError);
        REQUIRE(store.health().resident_bytes == before);
    }

    void collection() {  // 18
        Store<B> store(make_());
        const auto held = store.put(prototype("a"), Sample(1).features()),
                   free = store.put(prototype("b"), Sample(2).features());
        const auto lease = store.acquire(held);
        REQUIRE(store.collect(std::chrono::seconds(60)) == 0);
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
        REQUIRE(store.collect(std::chrono::seconds(0)) == 1);
        REQUIRE_THROWS_AS(store.acquire(free), StaleReferenceError);
        require_content(store, held, Sample(1));
        store.drain();
    }

    void batches() {  // 28
        Store<B> store(make_());
        const auto ref = store.put(prototype("a"), Sample(1).features());
        const auto lease = store.acquire(ref);
        Tensor good(DType::I64, {9}), bad(DType::I64, {1});
        const NamedBuffer right[] = {{"input_ids", good.mutable_view()}},
                          wrong[] = {{"input_ids", bad.mutable_view()}};
        const std::vector<typename Store<B>::ReadRequest> requests{{&lease, wrong},
                                                                   {&lease, right}};
        const auto status = store.read_each(requests);
        REQUIRE(status[0] != nullptr);
        REQUIRE(status[1] == nullptr);
        REQUIRE(same_bytes(good, Sample(1).ids));
    }

    void hostile_ids() {  // 36
        Store<B> store(make_());
        for (const std::string& id :
             {std::string("../x"), std::string("a/../../b"), std::string("nul\0byte", 8),
              std::string("\xC3\xA4\xE2\x82\xAC"), std::string(".hidden"),
              std::string("run:00000001")}) {
            const auto ref = store.put(prototype(id), Sample(3).features());
            require_content(store, ref, Sample(3));
        }
        REQUIRE(store.health().resident_objects == 6);
        try {  // 300 bytes: kept, or refused and nothing kept
            require_content(store,
                            store.put(prototype(std::string(300, 'x')), Sample(3).features()),
                            Sample(3));
            REQUIRE(store.health().resident_objects == 7);
        } catch (const ContractError&) {
            REQUIRE(store.health().resident_objects == 6);
        }
    }

    void threads() {  // leases, puts and collection from several threads
        Store<B> store(make_(), {.retain_on_release = false});
        std::vector<std::thread> all;
        std::atomic<int> bad{0};
        for (int t = 0; t < 4; ++t)
            all.emplace_back([&, t] {
                for (int i = 0; i < 25; ++i) {
                    const auto ref =
                        store.put(prototype("t" + std::to_string(t)), Sample(t).features());
                    auto lease = store.acquire(ref);
                    if (!same_bytes(store.view(lease)[0].tensor, Sample(t).ids)) ++bad;
                    store.collect(std::chrono::seconds(60));
                    store.release(std::move(lease));
                }
            });
        for (auto& t : all) t.join();
        REQUIRE(bad == 0);
        REQUIRE(store.health().resident_objects == 0);
    }

private:
    Make make_;
};

template <StoreBackend B>
void check_store(typename Suite<B>::Make make) {
    Suite<B> s(std::move(make));
    s.content();
    s.wrong_calls();
    s.isolation();
    s.generations();
    s.retention();
    s.quota();
    s.collection();
    s.batches();
    s.hostile_ids();
    s.threads();
}

}  // namespace eyas::conformance
