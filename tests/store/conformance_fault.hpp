#pragma once
#include <utility>

#include "conformance.hpp"
#include "faulty_backend.hpp"

// What a store does when its backend fails, whatever the backend: faults are injected around it.
namespace eyas::conformance {

template <StoreBackend B>
class FaultSuite {
    using Faulty = FaultyBackend<B>;
    using S = Store<Faulty>;

public:
    using Make = std::function<typename B::Options()>;
    explicit FaultSuite(Make make) : make_(std::move(make)) {}

    void failed_removals() {  // 19: stays pending, is tried again; drain is bounded and loud
        const typename Faulty::Options place{make_()};
        S store(place, {.retain_on_release = false});
        const auto ref = store.put(prototype("a"), Sample(1).features());
        auto lease = store.acquire(ref);
        place.faults->erases = 1'000'000;
        store.release(std::move(lease));  // does not throw: the consumer is done
        REQUIRE(store.health().pending_removals == 1);
        REQUIRE(store.health().resident_objects == 1);
        REQUIRE_THROWS_AS(store.acquire(ref), StaleReferenceError);  // dead at once all the same
        REQUIRE_THROWS_WITH(
            store.drain(std::chrono::milliseconds(60)),
            Catch::Contains("1 removals are still pending") && Catch::Contains("'a'"));
        REQUIRE(store.health().pending_removals == 1);
        REQUIRE(store.collect(std::chrono::seconds(0)) == 0);  // dead already: not freed twice
        const auto next = store.put(prototype("a"), Sample(2).features());  // is another object
        require_content(store, next, Sample(2));
        place.faults->erases = 2;
        store.drain();  // the third try succeeds
        REQUIRE(store.health().pending_removals == 0);
        require_content(store, next, Sample(2));
        REQUIRE_THROWS_AS(store.acquire(ref), StaleReferenceError);
    }

    void failed_puts() {  // 20: nothing goes before what replaces it is there
        const typename Faulty::Options place{make_()};
        S store(place);
        const auto one = store.put(prototype("a"), Sample(1).features());
        place.faults->publishes = 1;
        REQUIRE_THROWS_AS(store.put(prototype("a"), Sample(2).features()), ResourceError);
        require_content(store, one, Sample(1));
        REQUIRE(store.health().resident_objects == 1);
        REQUIRE(store.health().puts == 1);
        REQUIRE(store.put(prototype("a"), Sample(3).features()).generation() == 2);
    }

    void failed_opens() {  // 21: a lease that could not be made is none
        const typename Faulty::Options place{make_()};
        S store(place, {.retain_on_release = false});
        const auto ref = store.put(prototype("a"), Sample(1).features());
        for (int i = 0; i < 3; ++i) {
            place.faults->opens = 1;
            REQUIRE_THROWS_AS(store.acquire(ref), ResourceError);
            place.faults->damaged_opens = 1;
            REQUIRE_THROWS_AS(store.acquire(ref), DataError);
            auto other = ref;  // opens, and does not fit its specs
            other.feature_specs[0].shape = Shape{3};
            REQUIRE_THROWS_AS(store.acquire(other), DataError);
        }
        REQUIRE(store.health().active_leases == 0);
        REQUIRE(store.health().resident_objects == 1);
        require_content(store, ref, Sample(1));
        store.release(store.acquire(ref));  // the last lease, so it is freed
        REQUIRE(store.health().resident_objects == 0);
    }

    void deaths() {  // 24: before its release a sample is there for the next, afterwards it is gone
        const typename Faulty::Options place{make_()};
        S store(place, {.retain_on_release = false});
        const auto ref = store.put(prototype("a"), Sample(1).features());
        try {
            const auto lease = store.acquire(ref);
            throw std::runtime_error("the consumer ended before its release");
        } catch (const std::runtime_error&) {
        }
        require_content(store, ref, Sample(1));
        place.faults->erases = 1;  // it ended after the release, before the removal
        store.release(store.acquire(ref));
        REQUIRE_THROWS_AS(store.acquire(ref), StaleReferenceError);
        store.drain();
        REQUIRE(store.health().resident_objects == 0);
    }

    void lost_answers() {  // 26: the work was done; putting again makes the next generation
        const typename Faulty::Options place{make_()};
        S store(place);
        place.faults->lost_answers = 1;
        REQUIRE_THROWS_AS(store.put(prototype("a"), Sample(1).features()), TransportError);
        REQUIRE(store.health().resident_objects == 1);
        const auto ref = store.put(prototype("a"), Sample(2).features());
        REQUIRE(ref.generation() == 2);
        require_content(store, ref, Sample(2));
        REQUIRE(store.health().resident_objects == 1);
    }

    void removals_beside_reads() {  // drop, kill, collect and acquire at once, with slow removals
        const typename Faulty::Options place{make_()};
        S store(place, {.retain_on_release = false});
        std::atomic<int> bad{0}, freed{0};
        for (int round = 0; round < 12; ++round) {
            const auto ref = store.put(prototype("a"), Sample(round).features());
            place.faults->slow_erases = 1;
            place.faults->erases = round % 3 == 0 ? 1 : 0;
            std::vector<std::thread> all;
            for (int t = 0; t < 3; ++t)
                all.emplace_back([&, t] {
                    try {
                        auto lease = store.acquire(ref);
                        if (!same_bytes(store.view(lease)[0].tensor, Sample(round).ids)) ++bad;
                        if (t < 2) store.release(std::move(lease));
                    } catch (const StaleReferenceError&) {  // another one was quicker
                    } catch (...) {
                        ++bad;
                    }
                });
            all.emplace_back(
                [&] { freed += static_cast<int>(store.collect(std::chrono::seconds(0))); });
            all.emplace_back([&] {
                try {
                    store.drain();
                } catch (...) {
                    ++bad;
                }
            });
            for (auto& t : all) t.join();
            store.drain();
            store.collect(std::chrono::seconds(-1));  // where all readers came too late
            REQUIRE(store.health().active_leases == 0);
            REQUIRE(store.health().pending_removals == 0);
            REQUIRE(store.health().resident_objects == 0);
            REQUIRE_THROWS_AS(store.acquire(ref), StaleReferenceError);
        }
        REQUIRE(bad == 0);
    }

private:
    Make make_;
};

template <StoreBackend B>
void check_store_faults(typename FaultSuite<B>::Make make) {
    check_store<FaultyBackend<B>>([&] { return typename FaultyBackend<B>::Options{make()}; });
    FaultSuite<B> s(std::move(make));
    s.failed_removals();
    s.failed_puts();
    s.failed_opens();
    s.deaths();
    s.lost_answers();
    s.removals_beside_reads();
}

}  // namespace eyas::conformance
