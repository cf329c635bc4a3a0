#pragma once
#include <barrier>
#include <cstddef>
#include <exception>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "eyas/collective/collective.hpp"

namespace eyas::test {

/// Two threads as two ranks: sums in rank order, so every rank gets the same bits.
struct Group {
    explicit Group(int n) : world(n), gate(n), rows(static_cast<std::size_t>(n)) {}
    int world;
    std::barrier<> gate;
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
