#include <atomic>
#include <catch2/catch.hpp>
#include <csignal>
#include <thread>

#include "eyas/collective/collective.hpp"
#include "eyas/collective/gloo.hpp"
#include "tests/collective/ranks.hpp"

using namespace eyas;
using Catch::Matchers::Contains;
using Catch::Matchers::StartsWith;
using std::chrono::milliseconds;
using test::Ranks;

namespace {
// Far beyond what a test may take: an error that comes before it did not wait for it.
constexpr std::chrono::minutes never{60};

// Sums without end; tells at `turn` that it is at it.
std::string sum_for_ever(const Rendezvous& r, const std::filesystem::path& sign, int turn,
                         std::size_t n) {
    Collective<Gloo> group(r);
    std::vector<float> v(n, 1);
    for (int i = 0;; ++i) {
        if (i == turn) write_text_file(sign.string() + std::to_string(r.rank), "");
        group.all_reduce(std::span<float>(v));
        v.assign(n, 1);
    }
}

std::string text_of(const std::function<void()>& f) {
    try {
        f();
    } catch (const TransportError& e) {
        return e.what();
    }
    return "no TransportError";
}
}  // namespace

TEST_CASE("a rank that is killed while it sums is named by all others at once") {
    const test::RunDirectory signs("killed");
    eyas::create_directories(signs.path());
    int round = 0;
    for (const int world : {2, 3, 4})
        for (const std::size_t n : {1u, 100'000u, 4'000'000u}) {
            const int victim = round % world;
            const auto sign = signs.path() / ("round-" + std::to_string(round) + "-");
            Ranks ranks(
                world, [&](const Rendezvous& r) { return sum_for_ever(r, sign, round % 4, n); },
                never);
            REQUIRE(conformance::eventually(
                [&] { return std::filesystem::exists(sign.string() + std::to_string(victim)); }));
            ::usleep(static_cast<useconds_t>(1'000 * (round * 7 % 11)));
            REQUIRE(ranks.process(victim).kill() == -SIGKILL);
            for (int p = 0; p < world; ++p) {
                if (p == victim) continue;
                // Another rank may have seen it first, and closed its own connections.
                const auto said = ranks.result(p);
                CHECK_THAT(said, StartsWith("rank " + std::to_string(p) + " of "));
                CHECK_THAT(said, Contains("went away"));
                CHECK_THAT(said, Contains("start all ranks again"));
                if (world == 2) CHECK_THAT(said, Contains("rank " + std::to_string(victim) + " w"));
            }
            ++round;
        }
}

TEST_CASE("a transfer that is under way ends when its sender dies") {
    const test::RunDirectory signs("transfer");
    eyas::create_directories(signs.path());
    for (int round = 0; round < 4; ++round) {
        const auto sign = signs.path() / std::to_string(round);
        Ranks ranks(
            2,
            [&](const Rendezvous& r) {
                detail::GlooMesh mesh(r);
                std::vector<std::byte> bytes(200'000'000);  // more than any buffer of the kernel
                return text_of([&] {
                    mesh.run("test", [&] {
                        detail::GlooMesh::Wave wave(mesh, 1);
                        if (r.rank == 0) wave.receive(1, bytes);
                        if (r.rank == 1) write_text_file(sign, "");
                        if (r.rank == 1) wave.send(0, bytes);
                        wave.wait();
                    });
                });
            },
            never);
        REQUIRE(conformance::eventually([&] { return std::filesystem::exists(sign); }));
        ::usleep(static_cast<useconds_t>(5'000 * round));
        ranks.process(1).kill();
        // Whole bytes may have come before it died.
        CHECK_THAT(ranks.result(0), Contains("rank 1 went away") || Contains("no TransportError"));
    }
}

TEST_CASE("a rank that stands still is named when its time is over") {
    const test::RunDirectory signs("stopped");
    eyas::create_directories(signs.path());
    for (const std::size_t n : {1u, 4'000'000u}) {
        const auto sign = signs.path() / (std::to_string(n) + "-");
        Ranks ranks(
            3, [&](const Rendezvous& r) { return sum_for_ever(r, sign, 3, n); },
            milliseconds(2'000));
        REQUIRE(
            conformance::eventually([&] { return std::filesystem::exists(sign.string() + "2"); }));
        ranks.process(2).kill(SIGSTOP);
        const std::string said[] = {ranks.result(0), ranks.result(1)};
        // The first to notice closes its connections.
        CHECK((said[0].find("rank 2 was silent for 2000 ms") != std::string::npos ||
               said[1].find("rank 2 was silent for 2000 ms") != std::string::npos));
        for (const auto& s : said) CHECK_THAT(s, Contains(" silent ") || Contains("went away"));
        ranks.process(2).kill();
    }
}

TEST_CASE("a rank that never comes is named by rank 0 to all") {
    for (const int world : {2, 4}) {
        Ranks ranks(
            world, [](const Rendezvous& r) { return text_of([&] { Gloo group(r); }); },
            milliseconds(800), 1);
        CHECK_THAT(ranks.result(0), Contains("rank 1 did not come within 800 ms") &&
                                        Contains("Check that every rank was started"));
        for (int p = 2; p < world; ++p)  // of its own time or rank 0's, which ends first?
            CHECK_THAT(ranks.result(p), Contains("rank 1 did not come within 800 ms") ||
                                            Contains("rank 0 did not let it in within 800 ms"));
    }
    Ranks headless(
        3, [](const Rendezvous& r) { return text_of([&] { Gloo group(r); }); }, milliseconds(500),
        0);
    for (const int p : {1, 2})
        CHECK_THAT(headless.result(p),
                   Contains("rank 0 did not let it in within 500 ms") && Contains("MASTER_ADDR"));
}

TEST_CASE("a rank that comes late is waited for") {
    Ranks ranks(
        3,
        [](const Rendezvous& r) {
            if (r.rank != 1) ::usleep(r.rank == 0 ? 400'000 : 200'000);
            Collective<Gloo> group(r);
            std::array<float, 1> v{1};
            group.all_reduce(std::span<float>(v));
            return std::to_string(v[0]);
        },
        never);
    for (const auto& got : ranks.results()) CHECK(got == std::to_string(3.f));
}

TEST_CASE("who leaves in the middle ends the others' waits; the group stays ended") {
    for (const bool in_order : {true, false}) {
        Ranks ranks(
            3,
            [&](const Rendezvous& r) {
                Collective<Gloo> group(r);
                group.barrier();
                if (r.rank == 1 && in_order) return std::string("left");
                if (r.rank == 1) ::kill(::getpid(), SIGKILL);
                std::vector<float> v(100'000);
                std::string said = text_of([&] { group.all_reduce(std::span<float>(v)); });
                said += " | " + text_of([&] { group.barrier(); });
                return said;
            },
            never);
        for (const int p : {0, 2})
            CHECK_THAT(ranks.result(p), Contains("went away") && Contains("| rank ") &&
                                            Contains("barrier: the group has ended"));
        CHECK(ranks.process(1).wait() == (in_order ? 0 : -SIGKILL));
    }
}

TEST_CASE("who is done leaves without harm to those who are not") {
    for (int round = 0; round < 20; ++round) {
        Ranks ranks(
            4,
            [&](const Rendezvous& r) {
                std::vector<float> v(2'000'000, static_cast<float>(r.rank));
                {
                    Collective<Gloo> group(r);
                    group.all_reduce(std::span<float>(v));
                }
                return std::to_string(std::ranges::count(v, 6.f));
            },
            never);
        for (const auto& got : ranks.results()) CHECK(got == "2000000");
    }
}

TEST_CASE("ranks that make different calls are told so, and none of them crashes") {
    const auto differ = [](const std::function<void(Gloo&, int)>& call) {
        Ranks ranks(
            2,
            [&](const Rendezvous& r) {
                Gloo group(r);
                return text_of([&] { call(group, r.rank); });
            },
            milliseconds(500));
        const std::string said[] = {ranks.result(0), ranks.result(1)};
        CHECK((said[0].find("make the same calls") != std::string::npos ||
               said[1].find("make the same calls") != std::string::npos));
        for (const auto& s : said) CHECK_THAT(s, Contains("silent") || Contains("went away"));
    };
    std::vector<float> v(100'000);
    differ([&](Gloo& g, int r) { g.all_reduce(std::span(v).first(r == 0 ? 10 : 11)); });
    differ([&](Gloo& g, int r) { g.all_reduce(std::span(v).first(r == 0 ? 90'000 : 10)); });
    differ([&](Gloo& g, int r) {
        const std::size_t one[] = {40'000, 60'000}, other[] = {60'000, 40'000};
        g.reduce_scatter(v, r == 0 ? one : other);
    });
    differ([&](Gloo& g, int r) { g.broadcast(std::as_writable_bytes(std::span(v)), r); });
    differ([&](Gloo& g, int r) {
        if (r == 0)
            g.barrier();
        else
            g.all_reduce(std::span(v));
    });
}

TEST_CASE("two processes of one rank, or of another world, are told so") {
    const test::RunDirectory said("twice");
    eyas::create_directories(said.path());
    const auto port = test::free_port();
    const auto join = [&](int rank, int world, const std::string& name) {
        return [=, &said] {
            try {
                Gloo group({rank, world, "127.0.0.1", port, never});
                write_text_file(said.path() / name, "joined");
            } catch (const ContractError& e) {
                write_text_file(said.path() / name, e.what());
            }
        };
    };
    const auto words = [&](const std::string& name) {
        return std::filesystem::exists(said.path() / name) ? read_text_file(said.path() / name)
                                                           : std::string();
    };
    conformance::Process zero(join(0, 3, "0"));
    CHECK(conformance::in_process(join(1, 2, "2 ranks")) == 0);
    CHECK_THAT(words("2 ranks"), Contains("this group has 3 ranks, not 2"));
    conformance::Process one(join(1, 3, "1")), again(join(1, 3, "1 again"));
    REQUIRE(conformance::eventually([&] { return !(words("1") + words("1 again")).empty(); }));
    CHECK_THAT(words("1") + words("1 again"), Contains("there is a rank 1 already"));
    conformance::Process two(join(2, 3, "2"));
    for (auto* p : {&zero, &one, &again, &two}) CHECK(p->wait() == 0);
    CHECK(words("0") == "joined");
    CHECK(words("2") == "joined");
    CHECK((words("1") == "joined") != (words("1 again") == "joined"));
}

TEST_CASE("strangers at rank 0's door change nothing") {
    const auto port = test::free_port();
    const auto knock = [&](const std::string& bytes, bool stay) {
        return [=] {
            detail::Fd fd;
            sockaddr_in at{};
            at.sin_family = AF_INET;
            at.sin_port = htons(port);
            at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
            conformance::eventually([&] {
                fd = detail::Fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
                return ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&at), sizeof at) == 0;
            });
            (void)!::write(fd.get(), bytes.data(), bytes.size());
            if (stay) ::pause();
        };
    };
    const detail::WireWriter none;
    detail::WireWriter hostile;
    hostile.text("eyas group 1").put(std::int32_t{2}).put(std::int32_t{1});
    hostile.put(std::uint32_t{0xFFFFFFFF});
    std::vector<std::string> openings{"", "GET / HTTP/1.1\r\n\r\n", std::string(100'000, 'E')};
    for (const auto head : {none.bytes(), hostile.bytes()}) {
        const auto frame = detail::Frame::encode({.head = head});
        openings.push_back(test::bytes_of(std::span<const std::byte>(frame)));
    }
    conformance::Process zero([&] { Gloo group({0, 2, "127.0.0.1", port, never}); });
    for (const auto& bytes : openings) CHECK(conformance::in_process(knock(bytes, false)) == 0);
    conformance::Process silent(knock("", true));
    conformance::Process one([&] { Gloo group({1, 2, "127.0.0.1", port, never}); });
    CHECK(zero.wait() == 0);
    CHECK(one.wait() == 0);
    silent.kill();
}

TEST_CASE("a port that is taken is rank 0's error") {
    const auto port = test::free_port();
    Posix posix({});
    const auto taken = posix.listen({"tcp", "127.0.0.1", port, ""});
    CHECK_THROWS_AS(Gloo({0, 2, "127.0.0.1", port, milliseconds(500)}), ResourceError);
}

TEST_CASE("who is interrupted while it waits for the others ends at once and says so") {
    std::atomic<bool> stop{false};
    for (const int rank : {0, 1}) {
        Rendezvous r{rank, 2, "127.0.0.1", test::free_port(), never};
        r.interrupt = &stop;
        stop = false;
        std::thread later([&] {
            std::this_thread::sleep_for(milliseconds(50));
            stop = true;
        });
        const auto said = text_of([&] { Gloo group(r); });
        later.join();
        CHECK_THAT(said, StartsWith("rank " + std::to_string(rank) + " of 2"));
        CHECK_THAT(said, Contains("interrupted before rank " + std::to_string(1 - rank)));
    }
    Rendezvous nowhere{1, 2, "no-such-host.invalid", 29500, never};
    stop = true;
    nowhere.interrupt = &stop;
    CHECK_THAT(text_of([&] { Gloo group(nowhere); }), Contains("interrupted before a way"));
}

TEST_CASE("a host that has no address is an error at the deadline") {
    CHECK_THROWS_WITH(Gloo({1, 2, "no-such-host.invalid", 29500, milliseconds(200)}),
                      Contains("MASTER_ADDR"));
}
