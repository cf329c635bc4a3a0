#pragma once
#include <algorithm>
#include <catch2/catch.hpp>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "eyas/transport/transport.hpp"
#include "forked.hpp"
#include "scratch.hpp"

// What every transport must do, whatever its backend, when peers are processes that die and stand
// still. A user's own backend is tested by
//   eyas::conformance::check_transport<MyBackend>([] { return "eyas+mine://…"; });
// where the function gives an address to listen on that no other server has. The process that runs
// the suite never uses the backend: servers and clients are processes that are made before they do.
namespace eyas::conformance {

inline std::vector<std::byte> pattern(std::size_t n, std::size_t seed) {
    std::vector<std::byte> v(n);
    for (std::size_t i = 0; i < n; ++i) v[i] = static_cast<std::byte>((i * 31 + seed) & 255);
    return v;
}

/// Answers with the parts it got; some heads ask for something else.
class PeerService {
public:
    struct Session {};
    std::shared_ptr<Session> open_session() { return std::make_shared<Session>(); }
    void serve(Session&, Request& r) {
        const std::string head(reinterpret_cast<const char*>(r.head().data()), r.head().size());
        std::vector<std::vector<std::byte>> got;
        for (const auto n : r.parts()) got.emplace_back(n);
        const std::vector<std::span<std::byte>> places(got.begin(), got.end());
        if (!places.empty()) r.take(places);
        if (head == "kill") ::raise(SIGKILL);
        if (head == "stop") ::raise(SIGSTOP);  // this thread goes no further
        if (head.starts_with("soon"))          // "soon<signal>:<microseconds>", beside the answer
            std::thread([head] {
                const auto colon = head.find(':');
                ::usleep(static_cast<useconds_t>(std::stoul(head.substr(colon + 1))));
                ::kill(::getpid(), std::stoi(head.substr(4, colon - 4)));
            }).detach();
        if (head == "descriptors") {
            const std::uint64_t n = own("fd");
            return r.reply(std::as_bytes(std::span(&n, 1)));
        }
        const std::vector<std::span<const std::byte>> parts(got.begin(), got.end());
        r.reply(r.head(), parts);
    }
};

template <TransportBackend B>
class TransportSuite {
    using T = Transport<B>;
    using Client = typename T::Client;

public:
    using Make = std::function<std::string()>;
    explicit TransportSuite(Make make) : make_(std::move(make)) {}

    void sizes() {
        REQUIRE(with_servers(1, [](T& t, const auto& at, const auto&) {
                    const auto client = t.client(at[0], patient());
                    for (const std::size_t n : {0u, 1u, 65'000u, 65'536u, 5'000'001u})
                        demand(echoes(*client, "x", n), "every size");
                    demand(client->connections() == 1, "one link");
                }) == 0);
    }

    /// 30, 32: before, in and after a transfer; buffers are the caller's again, another peer serves
    /// them.
    void dead_peers() {
        for (const std::string when : {"before", "kill", "soon9:0", "soon9:700", "soon9:3000"})
            REQUIRE(with_servers(2, [&](T& t, const auto& at, const auto& pids) {
                        const auto client = t.client(at[0], options());
                        std::vector<std::byte> buffer(large);
                        demand(echoes(*client, "x", large, &buffer), "a living peer");
                        if (when == "before") ::kill(pids[0], SIGKILL);
                        const bool ended = fails(*client, when == "before" ? "x" : when, buffer);
                        demand(ended || when.starts_with("soon"), "a dead peer");
                        demand(fails(*client, "kill", buffer), "a peer that stays dead");
                        const auto other = t.client(at[1], patient());
                        demand(echoes(*other, "x", large, &buffer), "another peer, same buffer");
                    }) == 0);
    }

    void still_peers() {
        for (const std::string when : {"before", "stop", "soon19:0", "soon19:2000"})
            REQUIRE(
                with_servers(1, [&](T& t, const auto& at, const auto& pids) {
                    const auto client = t.client(at[0], options());
                    std::vector<std::byte> buffer(large);
                    demand(echoes(*client, "x", large, &buffer), "a living peer");
                    if (when == "before") {
                        ::kill(pids[0], SIGSTOP);
                        demand(eventually([&] { return stands(pids[0]); }), "a stopped peer");
                    }
                    const bool ended = fails(*client, when == "before" ? "x" : when, buffer);
                    demand(ended || when.starts_with("soon"), "a peer that stands still");
                    ::usleep(10'000);  // so that a signal that came late is before this one
                    ::kill(pids[0], SIGCONT);
                    demand(eventually([&] { return !fails(*client, "x", buffer); }), "it goes on");
                    demand(echoes(*t.client(at[0], patient()), "x", large, &buffer), "as before");
                }) == 0);
    }

    /// A client that is killed while it sends leaves nothing with the server.
    void dead_clients() {
        const auto said = dir_.path() / std::to_string(++files_);
        Process server([&] { serve(said, make_()); });
        const auto wait = [&] { demand(eventually([&] { return exists(said); }), "an address"); };
        std::vector<std::unique_ptr<Process>> victims;
        for (int i = 0; i < 3; ++i)
            victims.push_back(std::make_unique<Process>([&, i] {
                wait();
                T t;
                const auto client = t.client(parse_address(read_text_file(said)), patient());
                for (;;) {
                    (void)echoes(*client, "x", large);
                    write_text_file(said.string() + "-" + std::to_string(i), "sent");
                }
            }));
        Process observer([&] {
            wait();
            for (int i = 0; i < 3; ++i)
                eventually([&] { return exists(said.string() + "-" + std::to_string(i)); });
            write_text_file(said.string() + "-go", "");
            T t;
            const auto client = t.client(parse_address(read_text_file(said)), patient());
            const auto base = std::stoul(read_text_file(said.string() + "-base"));
            std::uint64_t now = 0;
            demand(eventually([&] { return (now = descriptors(*client)) <= base; }),
                   "a server that gives everything back");
        });
        REQUIRE(eventually([&] { return exists(said.string() + "-go"); }));
        for (auto& v : victims) REQUIRE(v->kill() == -SIGKILL);
        REQUIRE(observer.wait() == 0);
    }

    /// Nothing stays after clients, good and failed.
    void leaks() {
        REQUIRE(with_servers(2, [&](T& t, const auto& at, const auto& pids) {
                    const auto use = [&] {
                        const auto client = t.client(at[0], patient());
                        demand(echoes(*client, "x", large), "a living peer");
                        auto quick = options();
                        quick.reconnect_timeout = std::chrono::milliseconds(50);
                        std::vector<std::byte> buffer(10);
                        demand(fails(*t.client(at[1], quick), "x", buffer), "a dead peer");
                    };
                    ::kill(pids[1], SIGKILL);
                    use();
                    const auto files = own("fd"), threads = own("task");
                    for (int i = 0; i < 8; ++i) use();
                    demand(eventually([&] { return own("fd") <= files; }), "no descriptor stays");
                    demand(eventually([&] { return own("task") <= threads; }), "no thread stays");
                }) == 0);
    }

private:
    static constexpr std::size_t large = std::size_t{12} << 20;
    static ClientOptions options() {  // of clients whose peers fail
        return {.timeout = std::chrono::milliseconds(4000),
                .reconnect_timeout = std::chrono::milliseconds(500)};
    }
    static ClientOptions patient() { return {.timeout = std::chrono::milliseconds(25'000)}; }
    /// Whether every thread of a process is stopped: the signal takes them one by one.
    static bool stands(pid_t pid) {
        for (const auto& task :
             std::filesystem::directory_iterator("/proc/" + std::to_string(pid) + "/task")) {
            std::string line;
            std::getline(std::ifstream(task.path() / "stat"), line);
            if (line.find(") T ") == std::string::npos) return false;
        }
        return true;
    }
    static bool exists(const std::filesystem::path& p) { return std::filesystem::exists(p); }

    static void serve(const std::filesystem::path& said, const std::string& address) {
        T t;
        PeerService service;
        const auto server = t.serve(parse_address(address), service,
                                    {.timeout = patient().timeout, .same_host = false});
        {  // what it has open while one client asks
            const auto client = t.client(server->address(), patient());
            (void)echoes(*client, "x", 10);
            write_text_file(said.string() + "-base", std::to_string(descriptors(*client)));
        }
        write_text_file(said, server->address().text());
        for (;;) ::pause();
    }

    /// Runs f(transport, addresses, process ids) in a process of its own.
    template <class F>
    int with_servers(std::size_t n, const F& f) {
        std::vector<std::filesystem::path> said;
        std::vector<std::unique_ptr<Process>> servers;
        std::vector<pid_t> pids;
        for (std::size_t i = 0; i < n; ++i) {
            said.push_back(dir_.path() / std::to_string(++files_));
            servers.push_back(std::make_unique<Process>([&, at = make_()] { serve(said[i], at); }));
            pids.push_back(servers.back()->id());
        }
        return in_process([&] {
            std::vector<Address> at;
            for (const auto& s : said) {
                demand(eventually([&] { return exists(s); }), "an address");
                at.push_back(parse_address(read_text_file(s)));
            }
            T t;
            f(t, at, pids);
        });
    }

    /// Whether one answer came, with the bytes that were sent. `into`: where they go.
    static bool echoes(Client& client, const std::string& head, std::size_t n,
                       std::vector<std::byte>* into = nullptr) {
        static std::size_t seed = 0;
        const auto sent = pattern(n, ++seed);
        std::vector<std::byte> own_buffer(into ? 0 : n);
        auto& to = into ? *into : own_buffer;
        const std::span<const std::byte> parts[] = {sent};
        bool same = false;
        client.call({.head = std::as_bytes(std::span(head.data(), head.size())),
                     .parts = parts,
                     .answer = [&](InMessage& m, auto, const auto& take) {
                         if (m.parts != std::vector<std::uint64_t>{n}) return;
                         const std::span<std::byte> places[] = {{to.data(), n}};
                         take(places);
                         same = std::equal(sent.begin(), sent.end(), to.begin());
                     }});
        return same;
    }
    /// Whether a call ended with TransportError, within the deadline and some; its buffer is
    /// written at once, as a caller may.
    static bool fails(Client& client, const std::string& head, std::vector<std::byte>& buffer) {
        const auto start = std::chrono::steady_clock::now();
        bool failed = false;
        try {
            demand(echoes(client, head, buffer.size(), &buffer), "never a wrong byte");
        } catch (const TransportError&) {
            failed = true;
        }
        std::memset(buffer.data(), 0, buffer.size());
        demand(std::chrono::steady_clock::now() - start < std::chrono::seconds(30), "the deadline");
        return failed;
    }
    static std::uint64_t descriptors(Client& client) {
        std::uint64_t n = 0;
        client.call({.head = std::as_bytes(std::span("descriptors", 11)),
                     .answer = [&](InMessage&, auto head, const auto&) {
                         std::memcpy(&n, head.data(), std::min(head.size(), sizeof n));
                     }});
        return n;
    }

    Make make_;
    test::Scratch dir_;
    int files_ = 0;
};

template <TransportBackend B>
void check_transport(typename TransportSuite<B>::Make make) {
    TransportSuite<B> s(std::move(make));
    s.sizes();
    s.dead_peers();
    s.still_peers();
    s.dead_clients();
    s.leaks();
}

}  // namespace eyas::conformance
