#pragma once
#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "eyas/core/stream_copy.hpp"
#include "eyas/store/checked_copy.hpp"

namespace eyas::detail {

/// One feature on its way into a caller's buffer. A sum can only be made from the front; so threads
/// that help copy from the end, and the one that makes the sum copies too until they meet, and then
/// looks at what they copied: the sum is always that of the bytes that the caller gets.
class FeatureRead {
public:
    /// Of the object's tensor `i`. If it has no data, and the object does not decode it, its bytes
    /// are in `to` already and want verification only. The object, the memory and the key must
    /// outlive it.
    FeatureRead(const StoredObject& object, std::size_t i, std::span<std::byte> to,
                const ExpectedSums& expected, const ObjectKey& key)
        : object_(object),
          place_(place_of(object, i)),
          tensor_(object.tensors[i].tensor),
          to_(to),
          expected_(expected),
          feature_(object.tensors[i].name),
          key_(key) {
        if (tensor_.data && !by_descriptor()) {
            stretches_ = (to.size() + stretch - 1) / stretch;
            states_ = std::make_unique<std::atomic<State>[]>(stretches_);
        }
    }

    std::size_t bytes() const { return to_.size(); }
    /// Threads that it could occupy.
    std::size_t pieces() const {
        if (stretches_ > 0) return stretches_;
        return tensor_.data || object_.decode || expected_.xxh3 || expected_.crc32 ? 1 : 0;
    }

    /// Copies and verifies all of it, less what help() copies meanwhile. Throws DataError where a
    /// sum differs, and what reading the file throws.
    void run() {
        if (!tensor_.data && object_.decode) object_.decode(place_, to_);
        if (!tensor_.data) return expected_.verify(to_, feature_, key_);
        if (by_descriptor()) return run_by_descriptor();
        auto sums = expected_.start();
        for (std::size_t i = 0; i < stretches_; ++i) {
            if (take(i)) {
                copy(i, sums);
            } else {
                states_[i].wait(State::Taken, std::memory_order_acquire);
                sums(into(i));
            }
        }
        expected_.require(sums, feature_, key_);
    }

    /// Copies from the end what nobody has come to; from any thread, while run() works or before.
    void help() {
        const auto unseen = [](std::span<const std::byte>) {};
        for (std::size_t i = stretches_; i-- > 0;) {
            if (!take(i)) continue;
            copy(i, unseen);
            states_[i].store(State::Done, std::memory_order_release);
            states_[i].notify_all();
        }
    }

private:
    enum class State : std::uint8_t { Free, Taken, Done };  // Done: by help()

    static constexpr std::size_t stretch = std::size_t{2048} * 1024;  // copied by one thread

    /// What lies on a network file system is read: a server that fails is an error then, where a
    /// mapping would end the process.
    bool by_descriptor() const { return object_.file.on_network && lies_in(object_.file, tensor_); }
    void run_by_descriptor() {
        constexpr std::size_t cached = std::size_t{128} * 1024;
        auto sums = expected_.start();
        const auto offset = static_cast<std::uint64_t>(tensor_.data - object_.file.mapping.data());
        for (std::size_t at = 0; at < to_.size(); at += cached) {
            const auto part = to_.subspan(at, std::min(cached, to_.size() - at));
            read_at(object_.file.descriptor, offset + at, part);
            sums(part);
        }
        expected_.require(sums, feature_, key_);
    }

    bool take(std::size_t i) {
        auto free = State::Free;
        return states_[i].compare_exchange_strong(free, State::Taken, std::memory_order_acquire);
    }
    std::span<std::byte> into(std::size_t i) const {
        return to_.subspan(i * stretch, std::min(stretch, to_.size() - i * stretch));
    }
    std::span<const std::byte> from(std::size_t i) const {
        const auto all = tensor_.bytes();
        return all.subspan(i * stretch, std::min(stretch, all.size() - i * stretch));
    }
    // Of a file's mapping little more than a stretch for each thread is in this process at a time.
    template <class Look>
    void copy(std::size_t i, Look&& look) {
        copy_and_look(into(i), from(i), to_.size() >= bypass_from, look);
        if (!object_.file.is_memory && lies_in(object_.file, tensor_))
            let_pages_go(from(i), object_.file.mapping);
    }

    const StoredObject& object_;
    std::uint32_t place_;
    const TensorView& tensor_;
    std::span<std::byte> to_;
    ExpectedSums expected_;
    const std::string& feature_;
    const ObjectKey& key_;
    std::size_t stretches_ = 0;  // that may be shared
    std::unique_ptr<std::atomic<State>[]> states_ = {};
};

/// The features of one or several reads, largest first, by up to `threads` threads.
class SharedReads {
public:
    /// A read by so many bytes is worth more threads than the caller's.
    static constexpr std::size_t shared_from = std::size_t{8} << 20;

    /// `request`: whose feature it is, an index into the status of run().
    template <class... Args>
    void add(std::size_t request, Args&&... feature) {
        reads_.push_back(
            {std::make_unique<FeatureRead>(std::forward<Args>(feature)...), request, {}});
        if (const auto n = reads_.back().feature->pieces(); n > 0) {
            pieces_ += n;
            bytes_ += reads_.back().feature->bytes();
        }
    }

    /// Runs all, and puts the first error of each request into its status.
    void run(std::size_t threads, std::span<std::exception_ptr> status) {
        std::ranges::stable_sort(reads_, std::greater{},
                                 [](const One& r) { return r.feature->bytes(); });
        threads = bytes_ < shared_from ? 1 : std::min(threads, pieces_);
        std::vector<std::jthread> helpers;
        try {
            while (helpers.size() + 1 < threads) helpers.emplace_back([this] { work(); });
        } catch (const std::exception&) {
            // The machine has no thread or memory to spare: the caller does it.
        }
        work();
        helpers.clear();
        for (auto& r : reads_)
            if (r.error && !status[r.request]) status[r.request] = r.error;
    }

private:
    struct One {
        std::unique_ptr<FeatureRead> feature;
        std::size_t request;
        std::exception_ptr error;
    };

    void work() noexcept {
        for (std::size_t i; (i = next_.fetch_add(1, std::memory_order_relaxed)) < reads_.size();)
            try {
                reads_[i].feature->run();
            } catch (...) {
                reads_[i].error = std::current_exception();
            }
        for (auto& r : reads_) r.feature->help();
    }

    std::vector<One> reads_;
    std::atomic<std::size_t> next_ = 0;
    std::size_t bytes_ = 0, pieces_ = 0;
};

}  // namespace eyas::detail
