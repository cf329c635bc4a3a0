#pragma once
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bench/dataplane/processes.hpp"
#include "bench/timing.hpp"

// What the machine gives without eyas: bytes through a raw socket between two pinned processes, and
// UCX' own benchmark.
namespace eyas::bench {

namespace detail {
inline void all_of(int fd, char* data, std::size_t n, bool send) {
    while (n > 0) {
        const auto k = send ? ::send(fd, data, n, MSG_NOSIGNAL) : ::recv(fd, data, n, 0);
        if (k <= 0) ::_exit(1);
        data += k;
        n -= static_cast<std::size_t>(k);
    }
}

inline int connected_pair(bool unix_domain, int ends[2]) {
    if (unix_domain) return ::socketpair(AF_UNIX, SOCK_STREAM, 0, ends);
    const int listener = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in at{};
    at.sin_family = AF_INET;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof at;
    auto* address = reinterpret_cast<sockaddr*>(&at);
    ends[0] = ::socket(AF_INET, SOCK_STREAM, 0);
    const bool good = ::bind(listener, address, size) == 0 && ::listen(listener, 1) == 0 &&
                      ::getsockname(listener, address, &size) == 0 &&
                      ::connect(ends[0], address, size) == 0;
    ends[1] = good ? ::accept(listener, nullptr, nullptr) : -1;
    ::close(listener);
    const int yes = 1;
    for (int i = 0; i < 2; ++i) ::setsockopt(ends[i], IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    return ends[1] >= 0 ? 0 : -1;
}
}  // namespace detail

/// Seconds per message of `bytes`: each is asked for with one byte and sent as fast as it goes,
/// `count` a run, all from and into memory of their own, as a pool's objects are.
inline Times raw_socket(bool unix_domain, std::size_t bytes, std::size_t count, std::size_t runs) {
    int ends[2];
    if (detail::connected_pair(unix_domain, ends) != 0) throw std::runtime_error("no socket");
    const pid_t sender = ::fork();
    std::vector<char> memory(bytes * count, 1);
    if (sender == 0) {
        ::close(ends[0]);
        pin_to_core(0);
        char ask = 0;
        for (std::size_t i = 0; ::recv(ends[1], &ask, 1, 0) == 1; ++i)
            detail::all_of(ends[1], memory.data() + i % count * bytes, bytes, true);
        ::_exit(0);
    }
    ::close(ends[1]);
    cpu_set_t before;
    ::sched_getaffinity(0, sizeof before, &before);
    pin_to_core(1);
    std::vector<char> ask(count, 1);
    auto t = times_of(
        [&] {
            detail::all_of(ends[0], ask.data(), count, true);  // all at once: a stream
            for (std::size_t i = 0; i < count; ++i)
                detail::all_of(ends[0], memory.data() + i * bytes, bytes, false);
        },
        runs);
    ::sched_setaffinity(0, sizeof before, &before);
    ::close(ends[0]);
    ::waitpid(sender, nullptr, 0);
    for (auto* s : {&t.median, &t.min, &t.max}) *s /= static_cast<double>(count);
    return t;
}

/// GB/s of ucx_perftest's ucp_am_bw over the transports named; nothing where it is not installed.
inline std::optional<double> ucx_perftest(const std::string& tls, std::size_t bytes,
                                          std::size_t count) {
    static int port = 23337;
    const auto p = std::to_string(++port);
    const std::map<std::string, std::string> environment{
        {"UCX_TLS", tls}, {"UCX_NET_DEVICES", "lo"}, {"UCX_WARN_UNUSED_ENV_VARS", "n"}};
    Process server(0, {"ucx_perftest", "-p", p, "-q"}, environment, true);
    ::usleep(400'000);
    std::string command = "UCX_TLS=" + tls + " UCX_NET_DEVICES=lo UCX_WARN_UNUSED_ENV_VARS=n " +
                          "taskset -c 1 timeout 60 ucx_perftest 127.0.0.1 -p " + p +
                          " -t ucp_am_bw -f -w 8 -s " + std::to_string(bytes) + " -n " +
                          std::to_string(count) + " 2>/dev/null | grep -E '^ *[0-9]' | tail -1";
    const std::unique_ptr<std::FILE, int (*)(std::FILE*)> pipe(::popen(command.c_str(), "r"),
                                                               ::pclose);
    double v[6] = {};  // iterations, percentile, average and overall us, MiB/s average and overall
    const bool read = pipe && std::fscanf(pipe.get(), "%lf %lf %lf %lf %lf %lf", &v[0], &v[1],
                                          &v[2], &v[3], &v[4], &v[5]) == 6;
    return read ? std::optional(v[5] * 1048576 / 1e9) : std::nullopt;
}

}  // namespace eyas::bench
