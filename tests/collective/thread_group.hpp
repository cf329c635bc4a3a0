#pragma once
#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <exception>
#include <functional>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "eyas/collective/collective.hpp"

namespace eyas::test {

/// Ranks of one process: threads that look into each other's memory. One that leaves ends the calls
/// of the others, as a process that dies does.
struct ThreadGroup {
    explicit ThreadGroup(int n) : world(n), given(static_cast<std::size_t>(n)) {}

    /// Returns when all ranks are here.
    void meet() {
        std::unique_lock lock(mutex);
        const auto now = round;
        if (++arrived == world) {
            arrived = 0;
            ++round;
            changed.notify_all();
        }
        const bool came =
            changed.wait_for(lock, std::chrono::minutes(2), [&] { return round != now || left; });
        if (round == now)
            throw TransportError(came ? "another rank went away" : "another rank does not come",
                                 "thread group", "See its message");
    }
    void leave() {
        const std::lock_guard lock(mutex);
        left = true;
        changed.notify_all();
    }

    int world;
    std::vector<std::span<const std::byte>> given;
    std::function<void(int rank, const std::string& call)> on_call = [](int, const std::string&) {};
    std::mutex mutex;
    std::condition_variable changed;
    int arrived = 0;
    std::uint64_t round = 0;
    bool left = false;
};

class ThreadRank {
public:
    ThreadRank(ThreadGroup& group, int rank) : group_(group), rank_(rank) {}
    ThreadRank(const ThreadRank&) = delete;
    ThreadRank& operator=(const ThreadRank&) = delete;
    ~ThreadRank() { group_.leave(); }

    int rank() const { return rank_; }
    int world() const { return group_.world; }
    template <class T>
    void all_reduce(std::span<T> v) {
        exchange<T>(
            "all_reduce", v, [&](auto& all) { return sum<T>(all, 0, v.size()); }, 0);
    }
    void reduce_scatter(std::span<float> v, std::span<const std::size_t> counts) {
        const auto begin = begin_of(counts, rank_);
        exchange<float>(
            "reduce_scatter", v,
            [&](auto& all) {
                return sum<float>(all, begin, counts[static_cast<std::size_t>(rank_)]);
            },
            begin);
    }
    void all_gather(std::span<std::byte> v, std::span<const std::size_t> counts) {
        exchange<std::byte>(
            "all_gather", v, [&](auto& all) { return joined(all, counts); }, 0);
    }
    void gather(std::span<std::byte> v, std::span<const std::size_t> counts, int root) {
        exchange<std::byte>(
            "gather", v,
            [&](auto& all) {
                return rank_ == root ? joined(all, counts) : std::vector<std::byte>();
            },
            0);
    }
    void broadcast(std::span<std::byte> v, int root) {
        exchange<std::byte>(
            "broadcast", v,
            [&](auto& all) {
                const auto& roots = all[static_cast<std::size_t>(root)];
                return std::vector<std::byte>(roots.begin(), roots.end());
            },
            0);
    }
    void barrier() { group_.meet(); }

private:
    using All = std::vector<std::span<const std::byte>>;

    static std::size_t begin_of(std::span<const std::size_t> counts, int rank) {
        std::size_t begin = 0;
        for (int p = 0; p < rank; ++p) begin += counts[static_cast<std::size_t>(p)];
        return begin;
    }
    // In the order of the ranks.
    template <class T>
    static std::vector<T> sum(const All& all, std::size_t begin, std::size_t n) {
        std::vector<T> s(n);
        for (std::size_t p = 0; p < all.size(); ++p) {
            const auto* v = reinterpret_cast<const T*>(all[p].data()) + begin;
            for (std::size_t i = 0; i < n; ++i) s[i] = p == 0 ? v[i] : s[i] + v[i];
        }
        return s;
    }
    static std::vector<std::byte> joined(const All& all, std::span<const std::size_t> counts) {
        std::vector<std::byte> v;
        for (std::size_t p = 0; p < all.size(); ++p) {
            const auto shard = all[p].subspan(v.size(), counts[p]);
            v.insert(v.end(), shard.begin(), shard.end());
        }
        return v;
    }
    /// All give theirs, all look at all, then each writes what it made of them from `begin` on.
    template <class T, class F>
    void exchange(const char* call, std::span<T> v, F&& make, std::size_t begin) {
        group_.on_call(rank_, call);
        group_.given[static_cast<std::size_t>(rank_)] = std::as_bytes(v);
        group_.meet();
        const auto made = make(group_.given);
        group_.meet();
        std::ranges::copy(made, v.begin() + static_cast<std::ptrdiff_t>(begin));
    }

    ThreadGroup& group_;
    int rank_;
};
static_assert(CollectiveBackend<ThreadRank>);
using ThreadMember = Collective<ThreadRank>;

/// f(rank) on a thread for each; what each threw.
template <class F>
std::vector<std::exception_ptr> on_ranks(int world, F f) {
    std::vector<std::exception_ptr> errors(static_cast<std::size_t>(world));
    std::vector<std::thread> threads;
    for (int r = 0; r < world; ++r)
        threads.emplace_back([&, r] {
            try {
                f(r);
            } catch (...) {
                errors[static_cast<std::size_t>(r)] = std::current_exception();
            }
        });
    for (auto& t : threads) t.join();
    return errors;
}

/// "" where nothing was thrown.
inline std::string text_of(const std::exception_ptr& error) {
    if (!error) return "";
    try {
        std::rethrow_exception(error);
    } catch (const std::exception& e) {
        return e.what();
    }
}
/// The same of two ranks, as texts.
template <class F>
std::vector<std::string> on_both(F f) {
    std::vector<std::string> texts;
    for (const auto& e : on_ranks(2, f)) texts.push_back(text_of(e));
    return texts;
}
template <class E>
bool is_a(const std::exception_ptr& error) {
    if (!error) return false;
    try {
        std::rethrow_exception(error);
    } catch (const E&) {
        return true;
    } catch (...) {
        return false;
    }
}

}  // namespace eyas::test
