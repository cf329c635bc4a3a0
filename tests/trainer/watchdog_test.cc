#include "eyas/trainer/watchdog.hpp"

#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

using namespace eyas;
using std::chrono::milliseconds;

namespace {
struct Told {
    std::mutex mutex;
    std::vector<std::string> stages;
    std::vector<milliseconds> lasted;

    Watchdog::Report report() {
        return [this](const char* stage, milliseconds time) {
            const std::lock_guard lock(mutex);
            stages.emplace_back(stage);
            lasted.push_back(time);
        };
    }
    std::vector<std::string> all() {
        const std::lock_guard lock(mutex);
        return stages;
    }
    /// Until `n` were told; fails after many seconds.
    void wait(std::size_t n) {
        for (int i = 0; i < 4000 && all().size() < n; ++i)
            std::this_thread::sleep_for(milliseconds(5));
        REQUIRE(all().size() >= n);
    }
};
}  // namespace

TEST_CASE("a stage that lasts is told once, with its name, and the next one again") {
    Activity activity;
    Told told;
    const Watchdog watchdog(activity, milliseconds(30), told.report());
    activity.enter("waiting for data");
    told.wait(1);
    std::this_thread::sleep_for(milliseconds(100));
    CHECK(told.all() == std::vector<std::string>{"waiting for data"});
    activity.enter("writing a checkpoint");
    told.wait(2);
    CHECK(told.all().back() == "writing a checkpoint");
    // Entered anew it is another time in the same stage.
    activity.enter("writing a checkpoint");
    told.wait(3);
    const std::lock_guard lock(told.mutex);
    for (const auto time : told.lasted) CHECK(time >= milliseconds(30));
}

TEST_CASE("a watchdog without a limit says nothing, and one with a long one ends at once") {
    const Activity activity;
    Told told;
    { const Watchdog none(activity, milliseconds(0), told.report()); }
    { const Watchdog patient(activity, std::chrono::hours(1), told.report()); }
    CHECK(told.all().empty());
}
