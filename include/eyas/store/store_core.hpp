#pragma once
#include <atomic>
#include <cstdint>
#include <exception>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

#include "eyas/store/concept.hpp"
#include "eyas/store/credential.hpp"
#include "eyas/store/lease_table.hpp"
#include "eyas/store/policy.hpp"
#include "eyas/store/quota.hpp"
#include "eyas/store/refs.hpp"

namespace eyas::detail {

struct StoreCounters {
    std::atomic<std::uint64_t> puts{0}, reads{0}, releases{0}, aborts{0}, collected{0},
        stale_refused{0}, bytes_written{0}, bytes_read{0};
    StoreHealth snapshot() const {
        StoreHealth h;
        h.puts = puts, h.reads = reads, h.releases = releases, h.aborts = aborts,
        h.collected = collected;
        h.stale_refused = stale_refused, h.bytes_written = bytes_written, h.bytes_read = bytes_read;
        return h;
    }
};

/// What leases share with the store, so that either may go first. Thread-safe.
template <StoreBackend B>
struct StoreCore {
    StoreCore(typename B::Options options, StorePolicy p)
        : backend(std::move(options)), policy(std::move(p)), quota(policy.quota_bytes) {}

    /// The record is read again at each call, the token hashed only when the record changed.
    void authenticate() {
        const auto record = backend.credential_record();
        const std::lock_guard lock(credential_mutex);
        if (record == proven && (record || policy.auth_token.empty())) return;
        if (policy.auth_token.empty()) {
            if (!record) return;
            throw AuthenticationError("the store asks for a token", "Store",
                                      "Set the token (DISAGG_AUTH_TOKEN for the programs)");
        }
        if (!record || !detail::credential_matches(policy.auth_token, *record))
            throw AuthenticationError(
                record ? "the token is not this store's" : "the store has samples and no token",
                "Store", "Use the token that the store was made with");
        proven = record;
    }

    /// Room for a put, to be kept until it is stored or has failed; ResourceError where there is
    /// none.
    [[nodiscard]] Quota::Room require_room(const std::string& sample, std::uint64_t bytes) {
        return quota.require(backend, sample, bytes);
    }

    /// The ref of an object that the backend has just taken.
    SampleRef added(SampleRef prototype, std::span<const NamedTensor> tensors,
                    std::int64_t generation, std::uint64_t bytes) {
        count.puts += 1;
        auto uri = backend.uri({prototype.sample_id, generation});
        return complete_ref(std::move(prototype), tensors, std::move(uri), generation, bytes);
    }

    /// Takes a hold of an object; StaleReferenceError where it is dead.
    void hold(const ObjectKey& key) {
        if (!leases.hold(key))
            throw StaleReferenceError(
                "generation " + std::to_string(key.generation) + " was consumed",
                "sample '" + key.sample + "'", "Ingest the sample again");
    }

    /// Ends a hold; the last one frees where somebody asked for that.
    void let_go(const ObjectKey& key, bool free) noexcept {
        if (leases.drop(key, free)) remove(key);
    }

    void give_back(const ObjectKey& key, bool consumed) noexcept {
        (consumed ? count.releases : count.aborts) += 1;
        let_go(key, consumed && !policy.retain_on_release);
    }

    /// One use of an object that the caller does not hold. Whether it is gone then. Throws
    /// ContractError where the backend never removes such an object.
    bool consume(const ObjectKey& key) {
        bool dead = true;  // already: at most its removal is left to be done
        if (leases.hold(key)) {
            count.releases += 1;
            dead = leases.drop(key, !policy.retain_on_release);
        }
        const auto failure = dead ? remove(key) : nullptr;
        try {
            if (failure) std::rethrow_exception(failure);
        } catch (const ContractError&) {
            throw;
        } catch (...) {
        }
        return !leases.known(key);
    }

    /// Removes a dead object now, or leaves it pending and says why.
    std::exception_ptr remove(const ObjectKey& key) noexcept {
        try {
            backend.erase(key);
            leases.removed(key);
            return nullptr;
        } catch (...) {  // stays dead: drain() tries again and is loud
            return std::current_exception();
        }
    }

    B backend;
    StorePolicy policy;
    Quota quota;
    detail::LeaseTable leases;
    StoreCounters count;
    std::mutex credential_mutex;
    std::optional<std::string> proven;
};

}  // namespace eyas::detail
