#pragma once
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <mutex>
#include <span>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "eyas/collective/collective.hpp"

namespace eyas::test {

/// A barrier that throws where the others do not come within a minute.
class Gate {
public:
    explicit Gate(int n) : n_(n) {}
    void arrive_and_wait() {
        std::unique_lock lock(mutex_);
        const auto mine = passed_;
        if (++arrived_ == n_) {
            arrived_ = 0;
            ++passed_;
            all_.notify_all();
        } else if (!all_.wait_for(lock, std::chrono::minutes(1), [&] { return passed_ != mine; })) {
            throw std::runtime_error("the other rank does not come");
        }
    }

private:
    std::mutex mutex_;
    std::condition_variable all_;
    int n_, arrived_ = 0;
    std::uint64_t passed_ = 0;
};

/// Two threads as two ranks: sums in rank order, so every rank gets the same bits.
struct Group {
    explicit Group(int n) : world(n), gate(n), rows(static_cast<std::size_t>(n)) {}
    int world;
    Gate gate;
    std::vector<std::vector<double>> rows;
};

class Threads {
public:
    Threads(Group& g, int rank) : group_(&g), rank_(rank) {}
    int rank() const { return rank_; }
    int world() const { return group_->world; }
    template <class T>
    void all_reduce(std::span<T> v) {
        group_->rows[static_cast<std::size_t>(rank_)].assign(v.begin(), v.end());
        group_->gate.arrive_and_wait();
        for (std::size_t i = 0; i < v.size(); ++i) {
            double sum = 0;
            for (const auto& row : group_->rows) sum += row.at(i);
            v[i] = static_cast<T>(sum);
        }
        group_->gate.arrive_and_wait();
    }
    void broadcast(std::span<std::byte>, int) {}
    void barrier() { group_->gate.arrive_and_wait(); }

private:
    Group* group_;
    int rank_;
};
static_assert(CollectiveBackend<Threads>);

/// Runs both ranks; returns what each threw, "" for nothing.
template <class F>
std::vector<std::string> on_both(F rank) {
    std::vector<std::string> errors(2);
    std::vector<std::thread> threads;
    for (int r = 0; r < 2; ++r)
        threads.emplace_back([&, r] {
            try {
                rank(r);
            } catch (const std::exception& e) {
                errors[static_cast<std::size_t>(r)] = e.what();
            }
        });
    for (auto& t : threads) t.join();
    return errors;
}

}  // namespace eyas::test
