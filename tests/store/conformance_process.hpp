#pragma once
#include "conformance.hpp"
#include "eyas/sample/manifest.hpp"
#include "forked.hpp"
#include "scratch.hpp"

// What stores in several processes do that share one place. Every step is a process of its own that
// is made before it uses the store, so that transports which do not survive a fork (UCX) can be
// tested; the process that runs the suite never opens a store.
//   eyas::conformance::check_processes<MyBackend>([] { return MyBackend::Options{...}; });
// where the function gives the options of a fresh, empty place that every process can reach.
namespace eyas::conformance {

template <class S>
bool has_content(S& store, const SampleRef& ref, const Sample& want) {
    const auto lease = store.acquire(ref);
    const auto all = store.view(lease);
    return all.size() == 2 && same_bytes(all[0].tensor, want.ids) &&
           same_bytes(all[1].tensor, want.hidden);
}

template <class S>
bool is_stale(S& store, const SampleRef& ref) {
    try {
        (void)store.acquire(ref);
        return false;
    } catch (const StaleReferenceError&) {
        return true;
    }
}

template <StoreBackend B>
class ProcessSuite {
    using S = Store<B>;

public:
    using Make = std::function<typename B::Options()>;
    explicit ProcessSuite(Make make) : make_(std::move(make)) {}

    void put_here_read_there() {  // 1, 10, 25
        const auto place = make_();
        produce(place, "a", 1);
        REQUIRE(consume(place, {}, [](S& s, const SampleRef& ref) {
                    demand(ref.generation() == 1 && has_content(s, ref, Sample(1)), "g1");
                }) == 0);
        const auto old = ref_of();
        produce(place, "a", 2);
        REQUIRE(consume(place, {}, [&](S& s, const SampleRef& ref) {
                    demand(is_stale(s, old), "the old ref is refused");
                    demand(ref.generation() == 2 && has_content(s, ref, Sample(2)), "g2");
                    demand(s.health().resident_objects == 1, "one object");
                }) == 0);
    }

    void consumed_there() {  // 13, 14: gone for everybody; retained: there for everybody
        const auto place = make_();
        produce(place, "a", 1);
        REQUIRE(consume(place, {}, [](S& s, const SampleRef& ref) { s.release(s.acquire(ref)); }) ==
                0);
        REQUIRE(consume(place, once_, [](S& s, const SampleRef& ref) {
                    demand(has_content(s, ref, Sample(1)), "retained");
                    s.release(s.acquire(ref));
                }) == 0);
        REQUIRE(consume(place, {}, [](S& s, const SampleRef& ref) {
                    demand(is_stale(s, ref), "consumed");
                    demand(s.health().resident_objects == 0, "nothing is left");
                }) == 0);
        produce(place, "a", 3);  // a consumed generation never comes back
        REQUIRE(ref_of().generation() == 2);
    }

    void killed_consumers() {  // 24: before the release nothing is lost, after it nothing is left
        const auto place = make_();
        produce(place, "a", 1);
        REQUIRE(consume(place, once_, [](S& s, const SampleRef& ref) {
                    const auto lease = s.acquire(ref);
                    (void)s.view(lease);
                    ::raise(SIGKILL);
                }) == -SIGKILL);
        REQUIRE(consume(place, once_, [](S& s, const SampleRef& ref) {
                    demand(has_content(s, ref, Sample(1)), "it is still there");
                    s.release(s.acquire(ref));
                    ::raise(SIGKILL);
                }) == -SIGKILL);
        REQUIRE(consume(place, {}, [](S& s, const SampleRef& ref) {
                    demand(is_stale(s, ref), "it is gone");
                    demand(s.health().resident_objects == 0, "nothing is left");
                }) == 0);
    }

    void killed_producers() {  // 23, 24: what was acknowledged is there, and whole
        const auto place = make_();
        for (int round = 0; round < 4; ++round) {
            Process producer([&] {
                S s(place);
                for (int i = 1;; ++i)
                    write_ref(
                        s.put(prototype("k" + std::to_string(round)), Sample(i, 4000).features()));
            });
            for (int i = 0; i < 2000 && !acknowledged("k" + std::to_string(round)); ++i)
                ::usleep(2000);
            ::usleep(static_cast<useconds_t>(1700 * round));
            producer.kill();
            REQUIRE(consume(place, {}, [&](S& s, const SampleRef& ref) {
                        for (auto o : s.backend().objects()) {
                            if (o.key.sample != ref.sample_id) continue;
                            demand(o.key.generation >= ref.generation(), "an acknowledged put");
                            auto visible = ref;
                            visible.metadata["generation"] = o.key.generation;
                            demand(has_content(s, visible, Sample(o.key.generation, 4000)),
                                   "whole");
                            return;
                        }
                        demand(false, "an acknowledged put is gone");
                    }) == 0);
        }
    }

    void two_producers() {  // 37
        const auto place = make_();
        const auto put_many = [&](std::int64_t seed) {
            return [this, &place, seed] {
                S s(place);
                for (int i = 0; i < 20; ++i)
                    write_ref(s.put(prototype("a"), Sample(seed).features()));
            };
        };
        {
            Process one(put_many(1)), two(put_many(2));
            REQUIRE(one.wait() == 0);
            REQUIRE(two.wait() == 0);
        }
        REQUIRE(consume(place, {}, [](S& s, const SampleRef& any) {
                    const auto all = s.backend().objects();
                    demand(all.size() == 1 && all[0].key.generation == 40, "one generation each");
                    auto ref = any;
                    ref.metadata["generation"] = 40;
                    demand(has_content(s, ref, Sample(1)) || has_content(s, ref, Sample(2)),
                           "no mix");
                }) == 0);
    }

private:
    void write_ref(const SampleRef& ref) const {
        write_manifest(dir_.path() / "manifest.json", {.refs = {ref}});
    }
    SampleRef ref_of() const { return read_manifest(dir_.path() / "manifest.json").refs.at(0); }
    bool acknowledged(const std::string& id) const {
        return std::filesystem::exists(dir_.path() / "manifest.json") && ref_of().sample_id == id;
    }
    void produce(const typename B::Options& place, const std::string& id, std::int64_t seed) {
        REQUIRE(in_process([&] {
                    S s(place);
                    write_ref(s.put(prototype(id), Sample(seed).features()));
                }) == 0);
    }
    int consume(const typename B::Options& place, const StorePolicy& policy,
                const std::function<void(S&, const SampleRef&)>& f) {
        return in_process([&] {
            S s(place, policy);
            f(s, ref_of());
        });
    }

    const StorePolicy once_{.retain_on_release = false};
    Make make_;
    test::Scratch dir_;
};

template <StoreBackend B>
void check_processes(typename ProcessSuite<B>::Make make) {
    ProcessSuite<B> s(std::move(make));
    s.put_here_read_there();
    s.consumed_there();
    s.killed_consumers();
    s.killed_producers();
    s.two_producers();
}

}  // namespace eyas::conformance
