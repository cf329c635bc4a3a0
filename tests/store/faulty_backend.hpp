#pragma once
#include <atomic>
#include <chrono>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "eyas/store/concept.hpp"

namespace eyas::conformance {

/// What goes wrong next in a FaultyBackend; the test keeps it and changes it while stores run. Each
/// number counts down, one fault a call.
struct Faults {
    std::atomic<int> publishes{0}, opens{0}, erases{0};  // refused before anything is done
    std::atomic<int> lost_answers{0};                    // of publish, after the work was done
    std::atomic<int> damaged_opens{0};                   // DataError
    std::atomic<int> slow_erases{0};                     // take 50 ms
    std::atomic<int> slow_publishes{0};                  // take 300 ms before they begin

    static bool take(std::atomic<int>& n) {
        for (int left = n; left > 0;)
            if (n.compare_exchange_weak(left, left - 1)) return true;
        return false;
    }
};

/// A backend that is another one until a fault is asked for. Thread-safe.
template <StoreBackend B>
class FaultyBackend {
public:
    static constexpr std::string_view scheme = B::scheme;
    struct Options {
        typename B::Options place;
        std::shared_ptr<Faults> faults = std::make_shared<Faults>();
    };
    explicit FaultyBackend(Options o) : inner_(std::move(o.place)), faults_(std::move(o.faults)) {}

    std::int64_t publish(const std::string& sample, std::span<const NamedTensor> tensors,
                         const Checksums& checksums) {
        if (Faults::take(faults_->slow_publishes))
            std::this_thread::sleep_for(std::chrono::milliseconds(300));
        refuse(faults_->publishes, "no room");
        const auto generation = inner_.publish(sample, tensors, checksums);
        if (Faults::take(faults_->lost_answers))
            throw TransportError("the answer was lost", "FaultyBackend", "Put it again");
        return generation;
    }
    StoredObject open(const ObjectKey& key, bool verify) {
        refuse(faults_->opens, "no descriptors");
        if (Faults::take(faults_->damaged_opens))
            throw DataError("damaged", "FaultyBackend", "Ingest it again");
        return inner_.open(key, verify);
    }
    void erase(const ObjectKey& key) {
        if (Faults::take(faults_->slow_erases))
            std::this_thread::sleep_for(std::chrono::milliseconds(50));
        refuse(faults_->erases, "cannot be removed now");
        inner_.erase(key);
    }
    std::vector<ObjectInfo> objects() { return inner_.objects(); }
    Usage usage() { return inner_.usage(); }
    std::string uri(const ObjectKey& key) { return inner_.uri(key); }
    std::optional<std::string> credential_record() { return inner_.credential_record(); }
    void set_credential_record(const std::string& r) { inner_.set_credential_record(r); }
    std::vector<std::exception_ptr> read_each(std::span<const ObjectRead> reads) requires
        ReadsElsewhere<B> {
        return inner_.read_each(reads);
    }

private:
    static void refuse(std::atomic<int>& n, const char* what) {
        if (Faults::take(n)) throw ResourceError(what, "FaultyBackend", "Try again");
    }
    B inner_;
    std::shared_ptr<Faults> faults_;
};

}  // namespace eyas::conformance
