#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <chrono>
#include <cstring>
#include <thread>
#include <vector>

#include "eyas/core/stop_signals.hpp"
#include "eyas/device/cpu.hpp"

using namespace eyas;

namespace {
/// Multiplies until a signal asks to stop. 0: stopped, and every product had the same bits.
int multiply_until_stopped(int ready) {
    catch_stop_signals();
    const std::int64_t m = 256, n = 960, k = 1152;
    std::vector<float> a(static_cast<std::size_t>(m * k)), b(static_cast<std::size_t>(n * k)),
        c(static_cast<std::size_t>(m * n)), first;
    for (std::size_t i = 0; i < a.size(); ++i) a[i] = static_cast<float>(i * 7919 % 101) - 50.f;
    for (std::size_t i = 0; i < b.size(); ++i) b[i] = static_cast<float>(i * 104729 % 97) - 48.f;
    const auto multiply = [&] {
        Cpu().matmul(Matmul<float, float>{Op::None, Op::Transposed, m, n, k, a.data(), k, b.data(),
                                          k, c.data(), n});
    };
    multiply();
    first = c;
    if (::write(ready, "r", 1) != 1) return 3;
    for (int i = 0; i < 20'000; ++i) {
        multiply();
        if (std::memcmp(c.data(), first.data(), c.size() * sizeof(float)) != 0) return 2;
        if (stop_requested()) return 0;
    }
    return 4;  // the signal never arrived
}
}  // namespace

TEST_CASE("Ctrl-C and SIGTERM in the middle of matrix products stop cleanly") {
    for (int i = 0; i < 12; ++i) {
        int ready[2];
        REQUIRE(::pipe(ready) == 0);
        const auto child = ::fork();
        if (child == 0) ::_exit(multiply_until_stopped(ready[1]));
        char byte;
        REQUIRE(::read(ready[0], &byte, 1) == 1);
        std::this_thread::sleep_for(std::chrono::microseconds(2000 + 977 * i));
        REQUIRE(::kill(child, i % 2 ? SIGINT : SIGTERM) == 0);
        int status = 0;
        REQUIRE(::waitpid(child, &status, 0) == child);
        INFO("round " << i << ", status " << status);
        REQUIRE(WIFEXITED(status));
        REQUIRE(WEXITSTATUS(status) == 0);
        ::close(ready[0]);
        ::close(ready[1]);
    }
}
