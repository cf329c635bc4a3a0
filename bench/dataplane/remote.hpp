#pragma once
#include <cstring>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "bench/dataplane/ceilings.hpp"
#include "eyas/sample/manifest.hpp"
#include "eyas/store/memory.hpp"
#include "eyas/store/pool_service.hpp"
#include "eyas/store/remote_pool.hpp"
#include "eyas/transport/posix.hpp"
#ifdef EYAS_BENCH_UCX
#include "eyas/transport/ucx.hpp"
#endif

// Reads from a pool in another process: this program starts itself again as the pool and as its
// client, each pinned to a core.
namespace eyas::bench {

/// Objects of one size, one tensor each, as many as make a quarter of a gigabyte but 64 at most.
inline constexpr std::size_t remote_sizes[] = {std::size_t{64} << 10, std::size_t{1} << 20,
                                               std::size_t{16} << 20, std::size_t{256} << 20};
inline std::size_t objects_of(std::size_t bytes) {
    return std::min<std::size_t>(64, std::max<std::size_t>(1, (std::size_t{256} << 20) / bytes));
}

template <class F>
void with_fabric(const std::string& address, F&& f) {
#ifdef EYAS_BENCH_UCX
    if (address.starts_with("eyas+ucx")) return f(std::type_identity<Transport<Ucx>>{});
#endif
    f(std::type_identity<Transport<Posix>>{});
}

/// The pool's process: address and manifest appear in `dir`.
inline void serve(const std::string& address, const std::filesystem::path& dir) {
    with_fabric(address, [&](auto fabric) {
        using T = typename decltype(fabric)::type;
        Store<Memory> store({});
        PoolService service(store);
        Manifest manifest;
        for (const auto bytes : remote_sizes)
            for (std::size_t i = 0; i < objects_of(bytes); ++i) {
                Tensor t(DType::U8, {static_cast<std::int64_t>(bytes)});
                auto* words = reinterpret_cast<std::uint64_t*>(t.mutable_view().data);
                for (std::size_t k = 0; k < bytes / 8; ++k)
                    words[k] = (k + bytes + i) * 0x9E3779B97F4A7C15u;
                const NamedTensor named[] = {{"x", t}};
                const auto id = std::to_string(bytes) + ":" + std::to_string(i);
                manifest.refs.push_back(store.put({.sample_id = id, .run_id = "bench"}, named));
            }
        const auto server = T().serve(parse_address(address), service, {});
        write_manifest(dir / "manifest.json", manifest);
        write_text_file(dir / "address", server->address().text());
        for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
    });
}

/// One link's rows, in the client's process.
template <class T>
class RemoteRows {
public:
    RemoteRows(const std::string& link, const Address& address, Manifest manifest, std::size_t runs)
        : link_(link),
          manifest_(std::move(manifest)),
          runs_(runs),
          fast_(options(address), {.verify_checksums = false}),
          checked_(options(address), {}),
          arena_(DType::U8, {std::int64_t{256} << 20}) {
        std::memset(arena_.mutable_view().data, 1, arena_.view().size_bytes());
        if constexpr (requires { fast_.register_region(arena_.mutable_view().bytes()); })
            region_ =
                std::make_shared<Region>(fast_.register_region(arena_.mutable_view().bytes()));
    }

    void run() {
        for (const auto bytes : remote_sizes) {
            std::vector<const SampleRef*> refs;
            for (const auto& r : manifest_.refs)
                if (r.spec("x").size_bytes() == bytes) refs.push_back(&r);
            row(bytes, "one by one", fast_, refs, false);
            row(bytes, "in batches", fast_, refs, true);
            row(bytes, "in batches, verified", checked_, refs, true);
            const std::vector<const SampleRef*> same(refs.size(), refs.back());
            one_place_ = true;  // as ucx_perftest does
            row(bytes, "one object, in batches", fast_, same, true);
            one_place_ = false;
        }
    }

private:
    using S = Store<RemotePool<T>>;
    using Region = decltype(std::declval<S&>().register_region(std::span<std::byte>{}));

    static typename RemotePool<T>::Options options(const Address& address) {
        return {.address = address, .client = {.same_host = false}};
    }

    void row(std::size_t bytes, const char* how, S& store,
             const std::vector<const SampleRef*>& refs, bool batch) {
        const auto t =
            times_of([&] { batch ? read_batch(store, refs) : read_each(store, refs); }, runs_);
        verify(*refs.back(), bytes);
        const auto rate = [&](double seconds) {
            return static_cast<double>(bytes * refs.size()) / seconds / 1e9;
        };
        std::printf("%-18s %8zu KiB  %-22s %8.2f %8.2f %8.2f %10.1f us\n", link_.c_str(),
                    bytes >> 10, how, rate(t.median), rate(t.max), rate(t.min),
                    t.median / static_cast<double>(refs.size()) * 1e6);
        std::fflush(stdout);
    }

    std::span<std::byte> place(std::size_t i, std::size_t bytes) {
        return arena_.mutable_view().bytes().subspan(i * bytes % arena_.view().size_bytes(), bytes);
    }
    NamedBuffer buffer(const SampleRef& ref, std::size_t i) {
        const auto& spec = ref.spec("x");
        const auto at = one_place_ ? objects_of(spec.size_bytes()) - 1 : i;
        return {"x", {place(at, spec.size_bytes()).data(), spec.dtype, spec.shape}};
    }

    void read_each(S& store, const std::vector<const SampleRef*>& refs) {
        for (std::size_t i = 0; i < refs.size(); ++i) {
            auto lease = store.acquire(*refs[i]);
            if (mapped(store, lease)) continue;
            const auto b = buffer(*refs[i], i);
            store.read_into(lease, {&b, 1});
            store.release(std::move(lease));
        }
    }

    void read_batch(S& store, const std::vector<const SampleRef*>& refs) {
        std::vector<typename S::Lease> leases;
        for (const auto* r : refs) leases.push_back(store.acquire(*r));
        std::vector<NamedBuffer> buffers;
        for (std::size_t i = 0; i < refs.size(); ++i) buffers.push_back(buffer(*refs[i], i));
        std::vector<typename S::ReadRequest> requests;
        for (std::size_t i = 0; i < refs.size(); ++i) {
            if (mapped(store, leases[i])) continue;
            requests.push_back({&leases[i], {&buffers[i], 1}});
        }
        for (const auto& error : store.read_each(requests))
            if (error) std::rethrow_exception(error);
        for (auto& l : leases) store.release(std::move(l));
    }

    // From a pool on this machine the bytes are here already: a view is all that a get takes.
    bool mapped(S& store, const typename S::Lease& lease) {
        const auto& t = store.stored(lease).tensors[0].tensor;
        if (!t.data) return false;
        (void)store.view(lease);
        view_ = t;
        return true;
    }

    void verify(const SampleRef& ref, std::size_t bytes) {
        auto lease = checked_.acquire(ref);
        const auto got = checked_.view(lease)[0].tensor;  // compares checksums
        const std::size_t i = objects_of(bytes) - 1;
        if (checked_.stored(lease).file.mapping.empty() && !view_.data &&
            std::memcmp(got.data, place(i, bytes).data(), bytes) != 0)
            throw DataError("other bytes than were put", ref.sample_id, "Look for the fault");
    }

    std::string link_;
    Manifest manifest_;
    std::size_t runs_;
    S fast_, checked_;
    Tensor arena_;
    std::shared_ptr<void> region_;
    bool one_place_ = false;
    TensorView view_{};
};

inline void get(const std::string& link, const std::filesystem::path& dir, std::size_t runs) {
    const auto address = read_text_file(dir / "address");
    with_fabric(address, [&](auto fabric) {
        using T = typename decltype(fabric)::type;
        RemoteRows<T>(link, parse_address(address), read_manifest(dir / "manifest.json"), runs)
            .run();
    });
}

/// All links whose names have `only` in them, each with its ceiling beside it. `self`: this
/// program.
inline void remote_rows(const std::string& self, const std::filesystem::path& scratch,
                        std::size_t runs, const std::string& only) {
    struct Link {
        std::string name, address, tls;
    };
    std::vector<Link> links{{"unix, mapped", "eyas+unix://" + (scratch / "socket").string(), ""},
                            {"tcp", "eyas+tcp://127.0.0.1:0", ""}};
#ifdef EYAS_BENCH_UCX
    links.push_back({"ucx, shared memory", "eyas+ucx://127.0.0.1:0", "posix,self,tcp"});
    links.push_back({"ucx, tcp", "eyas+ucx://127.0.0.1:0", "tcp,self"});
#endif
    std::printf("\n%-18s %12s  %-22s %8s %8s %8s %13s\n", "reads from a pool", "", "", "GB/s",
                "min", "max", "each");
    std::fflush(stdout);
    int number = 0;
    for (const auto& l : links) {
        if (l.name.find(only) == std::string::npos) continue;
        const auto dir = scratch / ("pool" + std::to_string(number++));
        eyas::create_directories(dir);
        std::map<std::string, std::string> environment;
        if (!l.tls.empty()) environment = {{"UCX_TLS", l.tls}, {"UCX_NET_DEVICES", "lo"}};
        Process pool(0, {self, "--role", "serve", "--address", l.address, "--dir", dir.string()},
                     environment);
        wait_for_file(dir / "address");
        Process client(1,
                       {self, "--role", "get", "--link", l.name, "--dir", dir.string(), "--runs",
                        std::to_string(runs)},
                       environment);
        if (client.wait() != 0) throw std::runtime_error("the client of " + l.name + " failed");
        for (const auto bytes : {remote_sizes[1], remote_sizes[2]}) {
            const auto count = objects_of(bytes);
            if (l.name == "tcp") {
                const auto t = raw_socket(false, bytes, count, runs);
                std::printf("%-18s %8zu KiB  %-22s %8.2f %8.2f %8.2f\n", "raw tcp socket",
                            bytes >> 10, "stream", static_cast<double>(bytes) / t.median / 1e9,
                            static_cast<double>(bytes) / t.max / 1e9,
                            static_cast<double>(bytes) / t.min / 1e9);
            } else if (!l.tls.empty()) {
                std::vector<double> all;
                for (std::size_t i = 0; i < 3; ++i)
                    if (const auto v = ucx_perftest(l.tls, bytes, 4 * count)) all.push_back(*v);
                std::ranges::sort(all);
                if (all.empty())
                    std::printf("ucx_perftest is not installed (Debian: ucx-utils): no ceiling\n");
                else
                    std::printf("%-18s %8zu KiB  %-22s %8.2f %8.2f %8.2f\n", "ucx_perftest",
                                bytes >> 10, ("ucp_am_bw " + l.tls).c_str(), all[all.size() / 2],
                                all.front(), all.back());
            }
            std::fflush(stdout);
        }
    }
}

}  // namespace eyas::bench
