#pragma once
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <future>
#include <map>
#include <mutex>
#include <string>

#include "eyas/core/error_types.hpp"
#include "eyas/transport/concept.hpp"

namespace eyas::detail {

/// A put whose answer was lost comes again with its token, perhaps while the first is still under
/// way: it is done once, and both get its generation. Thread-safe.
class PutOnce {
public:
    /// The generation that `put` returned for this token, now or before. A repetition waits for the
    /// first within the limit (TransportError) and gets what that threw; after that the token is
    /// free again.
    template <class F>
    std::int64_t operator()(std::uint64_t token, const Limit& limit, const std::string& peer,
                            const F& put) {
        std::promise<Outcome> mine;
        {
            std::unique_lock lock(mutex_);
            const auto [it, first] = puts_.try_emplace(token);
            if (!first) {
                const auto earlier = it->second;
                lock.unlock();
                return wait(earlier, limit, peer);
            }
            it->second = mine.get_future().share();
        }
        try {
            const std::int64_t generation = put();
            remember(token);
            mine.set_value({.generation = generation});
            return generation;
        } catch (const std::exception& e) {
            forget(token);
            mine.set_value({.failed = true, .type = error_type_of(e), .text = e.what()});
            throw;
        } catch (...) {
            forget(token);
            mine.set_value({.failed = true, .type = error_types, .text = "unknown error"});
            throw;
        }
    }

private:
    // Of a failure the type and the text: an exception is its thread's own.
    struct Outcome {
        std::int64_t generation = 0;
        bool failed = false;
        std::size_t type = 0;
        std::string text = {};
    };
    using Earlier = std::shared_future<Outcome>;

    static constexpr std::size_t most_remembered = 4096;  // puts that are done

    static std::int64_t wait(const Earlier& earlier, const Limit& limit, const std::string& peer) {
        while (earlier.wait_for(std::chrono::milliseconds(limit.wait_ms())) !=
               std::future_status::ready)
            limit.check("waiting for the same put", peer);
        const auto& outcome = earlier.get();
        if (outcome.failed)
            std::rethrow_exception(make_error(outcome.type, outcome.text,
                                              "the same put, asked before", "It was tried once"));
        return outcome.generation;
    }

    void forget(std::uint64_t token) {
        const std::lock_guard lock(mutex_);
        puts_.erase(token);
    }
    void remember(std::uint64_t token) {
        const std::lock_guard lock(mutex_);
        order_.push_back(token);
        if (order_.size() <= most_remembered) return;
        puts_.erase(order_.front());
        order_.pop_front();
    }

    std::mutex mutex_;
    std::map<std::uint64_t, Earlier> puts_;
    std::deque<std::uint64_t> order_;  // tokens of those that are done
};

}  // namespace eyas::detail
