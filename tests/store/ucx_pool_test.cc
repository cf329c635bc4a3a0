#include <signal.h>
#include <sys/wait.h>

#include "conformance_process.hpp"
#include "eyas/store/memory.hpp"
#include "eyas/store/shared_directory.hpp"
#include "eyas/transport/ucx.hpp"
#include "scratch.hpp"
#include "served_pool.hpp"

using namespace eyas;
using conformance::prototype;
using conformance::Sample;
using Fabric = Transport<Ucx>;
using Pool = RemotePool<Fabric>;

// UCX does not survive a fork, so the processes of these tests are made before it is used: the pool
// runs in a child, and every test case's first act is to make one.
namespace {
template <class B>
using Served = test::Served<Fabric, B>;
constexpr const char* anywhere = "eyas+ucx://127.0.0.1:0";

void wait_for_file(const std::filesystem::path& path) {
    for (int i = 0; i < 3000 && !std::filesystem::exists(path); ++i) ::usleep(10'000);
    REQUIRE(std::filesystem::exists(path));
}

struct Child {
    pid_t pid;
    template <class F>
    explicit Child(const F& run) : pid(::fork()) {
        if (pid != 0) return;
        int code = 1;
        try {
            code = run();
        } catch (const std::exception& e) {
            std::fprintf(stderr, "child: %s\n", e.what());
        }
        ::_exit(code);
    }
    int kill() {
        ::kill(pid, SIGKILL);
        return wait();
    }
    int wait() {
        int status = 0;
        ::waitpid(pid, &status, 0);
        return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
    }
};

/// Runs `test` in a child that never used UCX before; `pool` serves in another one.
template <class P, class T>
int with_pool(const P& pool, const T& test) {
    test::Scratch dir;
    const auto said = dir.path() / "address";
    Child server([&] {
        pool(said, dir.path());
        for (;;) ::pause();
        return 0;
    });
    Child client([&] {
        wait_for_file(said);
        return test(parse_address(read_text_file(said)), server.pid, dir.path());
    });
    const int code = client.wait();
    server.kill();
    return code;
}

int serve_memory(const std::filesystem::path& said, const std::filesystem::path&) {
    static Served<Memory> pool({}, anywhere);
    write_text_file(said, pool.server->address().text());
    return 0;
}
}  // namespace

TEST_CASE("a pool over UCX in one process is a store") {
    Child child([] {
        test::Scratch dir;
        std::vector<std::unique_ptr<Served<SharedDirectory>>> all;
        conformance::check_store<Pool>([&] {
            all.push_back(std::make_unique<Served<SharedDirectory>>(
                SharedDirectory::Options{.root = dir.fresh(), .files = {.durable = false}},
                anywhere));
            return Pool::Options{.address = all.back()->server->address()};
        });
        return 0;
    });
    REQUIRE(child.wait() == 0);
}

TEST_CASE("a pool over UCX in another process gives every byte, small and large") {
    REQUIRE(with_pool(serve_memory, [](const Address& at, pid_t, const auto&) {
                Store<Pool> store(Pool::Options{.address = at});
                for (const std::int64_t n : {1, 9, 1000, 100'000, 3'000'000}) {
                    const Sample a(n % 7, n);
                    conformance::require_content(
                        store, store.put(prototype(std::to_string(n)), a.features()), a);
                }
                std::vector<SampleRef> refs;
                for (int i = 0; i < 40; ++i)
                    refs.push_back(
                        store.put(prototype("b" + std::to_string(i)), Sample(i, 5000).features()));
                std::vector<Store<Pool>::Lease> leases;
                std::vector<Tensor> memory;
                std::vector<NamedBuffer> buffers;
                std::vector<Store<Pool>::ReadRequest> requests;
                for (const auto& r : refs) {
                    leases.push_back(store.acquire(r));
                    memory.emplace_back(DType::I64, Shape{5000});
                    buffers.push_back({"input_ids", memory.back().mutable_view()});
                }
                for (std::size_t i = 0; i < refs.size(); ++i)
                    requests.push_back({&leases[i], {&buffers[i], 1}});
                for (const auto& error : store.read_each(requests))
                    if (error) std::rethrow_exception(error);
                for (std::size_t i = 0; i < refs.size(); ++i)
                    if (!conformance::same_bytes(memory[i], Sample(static_cast<int>(i), 5000).ids))
                        return 2;
                return 0;
            }) == 0);
}

TEST_CASE("a token is asked for over UCX too") {
    REQUIRE(with_pool(
                [](const auto& said, const auto&) {
                    static Served<Memory> pool({}, anywhere, {.auth_token = "right"});
                    write_text_file(said, pool.server->address().text());
                },
                [](const Address& at, pid_t, const auto&) {
                    try {
                        Store<Pool> s({.address = at, .client = {.auth_token = "wrong"}},
                                      {.auth_token = "wrong"});
                        return 2;
                    } catch (const AuthenticationError&) {
                    }
                    Store<Pool> store({.address = at, .client = {.auth_token = "right"}},
                                      {.auth_token = "right"});
                    conformance::require_content(
                        store, store.put(prototype("a"), Sample(1).features()), Sample(1));
                    return 0;
                }) == 0);
}

TEST_CASE("a pool that is killed or stands still ends reads within the deadline") {
    for (const int signal : {SIGKILL, SIGSTOP})
        REQUIRE(with_pool(serve_memory, [signal](const Address& at, pid_t pool, const auto&) {
                    Store<Pool> store(
                        {.address = at,
                         .client = {.timeout = std::chrono::seconds(4),
                                    .reconnect_timeout = std::chrono::milliseconds(500)}});
                    const Sample a(1, 2'000'000);
                    const auto ref = store.put(prototype("a"), a.features());
                    conformance::require_content(store, ref, a);
                    const auto lease = store.acquire(ref);
                    ::kill(pool, signal);
                    Tensor ids(DType::I64, a.ids.shape());
                    const NamedBuffer b[] = {{"input_ids", ids.mutable_view()}};
                    const auto start = std::chrono::steady_clock::now();
                    try {
                        store.read_into(lease, b);
                        return 2;
                    } catch (const TransportError&) {  // OwnerLostError is one
                    }
                    std::memset(b[0].buffer.data, 0, 64);  // the buffer is the caller's again
                    return std::chrono::steady_clock::now() - start < std::chrono::seconds(60) ? 0
                                                                                               : 3;
                }) == 0);
}

TEST_CASE("several processes share a pool over UCX") {
    test::Scratch dir;
    std::vector<std::unique_ptr<conformance::Process>> pools;
    conformance::check_processes<Pool>([&] {
        const auto said = dir.path() / std::to_string(pools.size());
        pools.push_back(std::make_unique<conformance::Process>([said] {
            serve_memory(said, {});
            for (;;) ::pause();
        }));
        wait_for_file(said);
        return Pool::Options{.address = parse_address(read_text_file(said))};
    });
}
