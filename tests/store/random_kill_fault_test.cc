// Producers, consumers and pools on one directory, of which one is killed at a random moment, many
// times. EYAS_KILLS says how often (200), EYAS_SEED where the moments begin.
#include <fcntl.h>

#include <fstream>
#include <map>
#include <random>
#include <set>
#include <sstream>

#include "conformance_process.hpp"
#include "eyas/store/shared_directory.hpp"
#include "eyas/transport/posix.hpp"
#include "served_pool.hpp"

using namespace eyas;
using conformance::demand;
using conformance::eventually;
using conformance::Process;
using conformance::prototype;
using conformance::Sample;
using Sockets = Transport<Posix>;
using Pool = RemotePool<Sockets>;

namespace {
constexpr int samples = 4;
constexpr std::int64_t tokens = 600;

int number_from(const char* variable, int otherwise) {
    const char* text = std::getenv(variable);
    return text ? std::atoi(text) : otherwise;
}

/// Lines that survive their writer's death: one write each.
class Log {
public:
    explicit Log(const std::filesystem::path& path)
        : fd_(::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644)) {}
    void say(const std::string& line) const {
        const auto text = line + "\n";
        demand(::write(fd_.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size()),
               "a log");
    }

private:
    detail::Fd fd_;
};

/// One round's place and who works there.
struct Round {
    std::filesystem::path dir;
    std::string socket = "eyas+unix://" + (dir / "socket").string();
    SharedDirectory::Options place{.root = dir, .files = {.durable = false}};

    Pool::Options client() const {
        return {.address = parse_address(socket),
                .client = {.timeout = std::chrono::milliseconds(3000),
                           .reconnect_timeout = std::chrono::milliseconds(400)}};
    }
    bool over() const { return std::filesystem::exists(dir / "over"); }

    template <class F>
    void work(const F& f) const {
        while (!over()) f();
    }
    /// Works at the pool; a pool that was killed ends that, also before it was reached.
    template <class F>
    void work_there(const StorePolicy& policy, const F& f) const {
        const auto there = [&](const char* name) { return std::filesystem::exists(dir / name); };
        // Processes start in any order, and late on a busy machine.
        eventually([&] { return there("socket") || there("pool-killed") || over(); });
        bool reached = false;
        try {
            Store<Pool> store(client(), policy);
            reached = true;
            f(store);
        } catch (const TransportError&) {
            // A pool that nobody has reached goes when all is over: this process was too late.
            demand(there("pool-killed") || (!reached && over()), "a pool that is lost was killed");
        }
    }

    void pool() const {
        test::Served<Sockets, SharedDirectory> served(place, socket);
        Log(dir / "serving").say("");
        while (!over()) ::usleep(1000);
        // What dead clients held is free when they are gone.
        demand(eventually([&] { return served.server->sessions() == 0; }), "sessions end");
        demand(eventually([&] { return served.service.leases() == 0; }), "leases end with them");
    }

    /// The content tells the sample and a number that no other put has; the log tells, after the
    /// acknowledgement, which generation that was.
    template <class S>
    void produce(S& store, int who) const {
        const Log log(dir / "acknowledged");
        std::int64_t n = 0;
        work([&] {
            for (int i = who; i < samples; i += 2, ++n) {
                const auto seed = 1000 * n + i;
                const auto ref =
                    store.put(prototype(std::to_string(i)), Sample(seed, tokens).features());
                log.say(std::to_string(i) + " " + std::to_string(ref.generation()) + " " +
                        std::to_string(seed));
            }
        });
    }

    /// Whole, and of this sample: hidden states say the same number as ids.
    template <class S>
    static std::int64_t seed_of(S& store, const SampleRef& ref) {
        const auto lease = store.acquire(ref);
        const auto all = store.view(lease);
        demand(all.size() == 2 && all[0].tensor.shape == Shape{tokens}, "an object is whole");
        std::int64_t first = 0;
        std::memcpy(&first, all[0].tensor.data, sizeof first);
        const Sample want(first / 100, tokens);
        demand(conformance::same_bytes(all[0].tensor, want.ids) &&
                   conformance::same_bytes(all[1].tensor, want.hidden) &&
                   std::to_string(first / 100 % 1000) == ref.sample_id,
               "an object is right");
        return first / 100;
    }

    template <class S>
    void consume(S& store, bool once) const {
        const Log log(dir / "consumed");
        work([&] {
            for (const auto& o : store.backend().objects()) {
                auto ref = prototype(o.key.sample);
                ref.metadata["generation"] = o.key.generation;
                try {
                    (void)seed_of(store, ref);
                    auto lease = store.acquire(ref);
                    if (once && o.key.generation % 3 == 0)
                        log.say(o.key.sample + " " + std::to_string(o.key.generation));
                    else
                        continue;  // given back unconsumed
                    store.release(std::move(lease));
                } catch (const StaleReferenceError&) {  // put again or consumed meanwhile
                }
            }
        });
    }

    /// What must hold when all have ended, whoever was killed.
    void check() const {
        auto sweeping = place;
        sweeping.files.sweep_after = std::chrono::seconds(0);
        Store<SharedDirectory> store(sweeping);
        std::map<std::string, std::map<std::int64_t, std::int64_t>> acknowledged;
        std::set<std::pair<std::string, std::int64_t>> consumed;
        std::string id;
        std::int64_t generation = 0, seed = 0;
        for (std::ifstream in(dir / "acknowledged"); in >> id >> generation >> seed;)
            REQUIRE(acknowledged[id].emplace(generation, seed).second);  // none given twice
        for (std::ifstream in(dir / "consumed"); in >> id >> generation;)
            consumed.emplace(id, generation);
        std::map<std::string, std::int64_t> visible;
        for (const auto& o : store.backend().objects()) {
            auto ref = prototype(o.key.sample);
            ref.metadata["generation"] = o.key.generation;
            const auto have = seed_of(store, ref);
            REQUIRE(visible.emplace(o.key.sample, o.key.generation).second);
            const auto& acks = acknowledged[o.key.sample];
            if (const auto it = acks.find(o.key.generation); it != acks.end())
                REQUIRE(it->second == have);
        }
        for (const auto& entry : acknowledged) {
            const auto& sample = entry.first;
            const auto& acks = entry.second;
            if (acks.empty()) continue;
            const auto last = acks.rbegin()->first;
            const auto it = visible.find(sample);
            const auto newer = [&](const auto& c) { return c.first == sample && c.second >= last; };
            INFO("sample " << sample << " generation " << last);
            REQUIRE(((it != visible.end() && it->second >= last) ||
                     std::any_of(consumed.begin(), consumed.end(), newer)));
        }
        store.collect(std::chrono::seconds(-1));
        store.drain();
        for (const auto& e : std::filesystem::recursive_directory_iterator(dir / "eyas")) {
            INFO(e.path());
            REQUIRE((e.path().filename() == ".eyas-lock" || e.path().filename() == ".eyas-tmp"));
        }
        {  // a pool that was killed leaves its socket's file, which the next one takes over
            test::Served<Sockets, SharedDirectory> next(place, socket);
            REQUIRE(Store<Pool>(client()).health().resident_objects == 0);
        }
        REQUIRE_FALSE(std::filesystem::exists(dir / "socket"));
    }
};

enum Victim { Producer, ProducerThere, Consumer, ConsumerThere, ThePool, victims };

void kill_one(const Round& r, Victim victim, bool once, useconds_t moment) {
    std::vector<std::unique_ptr<Process>> all(victims);
    const auto start = [&](Victim v, const std::function<void()>& f) {
        all[v] = std::make_unique<Process>(f);
    };
    start(ThePool, [&] { r.pool(); });
    REQUIRE(eventually([&] { return std::filesystem::exists(r.dir / "serving"); }));
    start(Producer, [&] {
        Store<SharedDirectory> store(r.place);
        r.produce(store, 0);
    });
    start(ProducerThere, [&] { r.work_there({}, [&](auto& store) { r.produce(store, 1); }); });
    start(Consumer, [&] {
        Store<SharedDirectory> store(r.place, {.retain_on_release = !once});
        r.consume(store, once);
    });
    start(ConsumerThere, [&] {
        r.work_there({.retain_on_release = !once}, [&](auto& store) { r.consume(store, once); });
    });
    ::usleep(moment);
    if (victim == ThePool) write_text_file(r.dir / "pool-killed", "");
    REQUIRE(all[victim]->kill() == -SIGKILL);
    ::usleep(5000);  // the others go on
    write_text_file(r.dir / "over", "");
    for (int v = 0; v < victims; ++v) {
        INFO("process " << v);
        if (v != victim) REQUIRE(all[static_cast<std::size_t>(v)]->wait() == 0);
    }
}
}  // namespace

TEST_CASE("whoever is killed whenever: what is visible is right, what was acknowledged is there") {
    const int kills = number_from("EYAS_KILLS", 200), seed = number_from("EYAS_SEED", 1);
    WARN(kills << " kills, seeds from " << seed);
    for (int i = 0; i < kills; ++i) {
        std::mt19937 random(static_cast<unsigned>(seed + i));
        test::Scratch dir;
        const Round round{.dir = dir.path()};
        const auto victim = static_cast<Victim>(random() % victims);
        const bool once = random() % 2;
        const auto moment = static_cast<useconds_t>(3000 + random() % 40'000);
        INFO("seed " << seed + i << ", victim " << victim << ", once " << once << ", after "
                     << moment << " us");
        kill_one(round, victim, once, moment);
        round.check();
    }
}
