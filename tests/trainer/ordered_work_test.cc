#include "eyas/trainer/ordered_work.hpp"

#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <future>
#include <memory>
#include <stdexcept>
#include <thread>
#include <vector>

using eyas::detail::OrderedWork;

TEST_CASE("work is done in its order, on one other thread, by the time wait returns") {
    OrderedWork work;
    std::vector<int> done;  // no lock: wait() orders
    std::vector<std::thread::id> where;
    for (int round = 0; round < 3; ++round) {
        for (int i = 0; i < 100; ++i)
            work.post([&, i] {
                done.push_back(i);
                where.push_back(std::this_thread::get_id());
            });
        work.wait();
        REQUIRE(done.size() == 100);
        for (int i = 0; i < 100; ++i) CHECK(done[static_cast<std::size_t>(i)] == i);
        done.clear();
    }
    for (const auto id : where) CHECK((id == where[0] && id != std::this_thread::get_id()));
}

TEST_CASE("after work that throws the rest is dropped, and wait tells once") {
    OrderedWork work;
    std::promise<void> go;
    std::atomic<int> done = 0;
    work.post([&] {
        go.get_future().wait();
        throw std::runtime_error("first");
    });
    work.post([&] { ++done; });
    go.set_value();
    CHECK_THROWS_WITH(work.wait(), "first");
    CHECK(done == 0);
    work.wait();
    work.post([&] { ++done; });
    work.wait();
    CHECK(done == 1);
}

TEST_CASE("drop waits for what has begun and forgets what has not") {
    OrderedWork work;
    std::promise<void> begun, go;
    bool ended = false;
    std::atomic<int> later = 0;
    work.post([&] {
        begun.set_value();
        go.get_future().wait();
        ended = true;
        throw std::runtime_error("nobody wants to know");
    });
    for (int i = 0; i < 3; ++i) work.post([&] { ++later; });
    begun.get_future().wait();
    std::thread release([&] { go.set_value(); });
    work.drop();
    CHECK(ended);
    release.join();
    work.wait();  // no error is left
    CHECK(later == 0);
}

TEST_CASE("drop forgets what has not begun also when what has begun ends well") {
    OrderedWork work;
    std::promise<void> begun;
    std::atomic<int> later = 0;
    bool forgotten = false;
    auto token = std::make_shared<int>();  // lives as long as work that has not begun
    work.post([&, alive = std::weak_ptr<int>(token)] {
        begun.set_value();
        const auto deadline = std::chrono::steady_clock::now() + std::chrono::minutes(1);
        while (!(forgotten = alive.expired()) && std::chrono::steady_clock::now() < deadline)
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
    });
    for (int i = 0; i < 3; ++i) work.post([&, token] { ++later; });
    token.reset();
    begun.get_future().wait();
    work.drop();
    CHECK(forgotten);
    work.wait();
    CHECK(later == 0);
}

TEST_CASE("work that is posted but not waited for ends with its owner") {
    std::atomic<bool> ended = false;
    std::promise<void> begun;
    {
        OrderedWork work;
        work.post([&] {
            begun.set_value();
            ended = true;
        });
        begun.get_future().wait();
    }
    CHECK(ended);
}
