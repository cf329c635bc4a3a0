#pragma once
#include <chrono>
#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "eyas/core/checksum.hpp"
#include "eyas/sample/sample_ref.hpp"
#include "eyas/store/checked_copy.hpp"
#include "eyas/store/concept.hpp"
#include "eyas/store/policy.hpp"
#include "eyas/store/refs.hpp"
#include "eyas/store/remote_read.hpp"
#include "eyas/store/shared_read.hpp"
#include "eyas/store/store_core.hpp"

namespace eyas {

/// Generation-addressed features behind one policy: leases, retention, stale refusal, credentials,
/// checksums, quota, collection by age and counters, over any backend. Every method may be called
/// from several threads; a lease belongs to one thread at a time and may outlive the store. Several
/// instances and processes may share a backend's place: leases are each instance's own.
template <StoreBackend B>
class Store {
    using Core = detail::StoreCore<B>;

public:
    using backend_type = B;
    using Options = typename B::Options;

    /// A sample that is held: its views stay valid and this instance does not free it. Destruction
    /// without Store::release gives it back unconsumed.
    class Lease {
    public:
        Lease(Lease&& o) noexcept = default;
        Lease& operator=(Lease&& o) noexcept {
            if (this != &o) {
                drop(false);
                core_ = std::move(o.core_);
                key_ = std::move(o.key_);
                object_ = std::move(o.object_);
            }
            return *this;
        }
        ~Lease() { drop(false); }
        const ObjectKey& key() const { return key_; }

    private:
        friend class Store;
        Lease(std::shared_ptr<Core> core, ObjectKey key, StoredObject object)
            : core_(std::move(core)), key_(std::move(key)), object_(std::move(object)) {}
        void drop(bool consumed) noexcept {
            object_ = {};  // first, so that a pool hears of both in one round trip
            if (const auto core = std::exchange(core_, nullptr)) core->give_back(key_, consumed);
        }

        std::shared_ptr<Core> core_;
        ObjectKey key_;
        mutable StoredObject object_;  // tensors under the ref's feature names
    };

    /// Opens or creates the place; a token is given to an empty one. Throws AuthenticationError
    /// when its credential is not the policy's token (or one of them has none); ResourceError and
    /// DataError from the backend.
    explicit Store(Options options, StorePolicy policy = {})
        : core_(std::make_shared<Core>(std::move(options), std::move(policy))) {
        if (!core_->policy.auth_token.empty() && !core_->backend.credential_record() &&
            core_->backend.objects().empty())
            core_->backend.set_credential_record(
                detail::make_credential_record(core_->policy.auth_token));
        core_->authenticate();
    }

    /// Stores one sample's features as its next generation; all of them or none. `prototype` says
    /// what the sample is (id, run, strategy, metadata); the ref that comes back adds specs, keys,
    /// URI, generation and bytes. Throws ContractError for no features, a feature twice or metadata
    /// that carries a payload; ResourceError past the quota or when the disk refuses; nothing
    /// changes then.
    SampleRef put(SampleRef prototype, std::span<const NamedTensor> tensors,
                  const GivenChecksums& given = {}) {
        core_->authenticate();
        const auto where = "sample '" + prototype.sample_id + "'";
        const auto bytes = detail::checked_prototype(prototype, tensors);
        const auto checksums = detail::checksums_of(tensors, given, where);
        const auto room = core_->require_room(prototype.sample_id, bytes);
        const auto generation = core_->backend.publish(prototype.sample_id, tensors, checksums);
        core_->count.bytes_written += bytes;
        return core_->added(std::move(prototype), tensors, generation, bytes);
    }

    /// The same with a file that becomes the store's without a copy: `tensors` are the features in
    /// it (their bytes are not read: the payload's own checksums are verified when it is). Throws
    /// what put() throws, and ResourceError where the file lies on another file system.
    SampleRef adopt(SampleRef prototype, std::span<const NamedTensor> tensors,
                    const AdoptedFile& file) requires AdoptsFiles<B> {
        core_->authenticate();
        const auto bytes = detail::checked_prototype(prototype, tensors);
        const auto room = core_->require_room(prototype.sample_id, bytes);
        const auto generation = core_->backend.adopt(prototype.sample_id, file);
        return core_->added(std::move(prototype), tensors, generation, bytes);
    }

    /// Takes a lease on the generation that the ref names. Throws StaleReferenceError when it was
    /// consumed or put again, DataError when its file is bad or does not fit the ref's specs (no
    /// lease is left then), AuthenticationError.
    Lease acquire(const SampleRef& ref) {
        core_->authenticate();
        const auto located = detail::located_key(ref);
        const auto key = detail::held_key(located);
        try {
            core_->hold(key);  // before it is opened, so that nobody frees it meanwhile
        } catch (const StaleReferenceError&) {
            core_->count.stale_refused += 1;
            throw;
        }
        try {
            return Lease(core_, key,
                         detail::features_of(
                             ref, core_->backend.open(located, core_->policy.verify_checksums)));
        } catch (const StaleReferenceError&) {
            core_->let_go(key, false);
            core_->count.stale_refused += 1;
            throw;
        } catch (...) {
            core_->let_go(key, false);
            throw;
        }
    }

    /// Copies features into the caller's memory, each under its name, verified on the way as the
    /// policy says. Throws ContractError for an unknown feature or a buffer of another dtype or
    /// shape (before anything is copied), DataError when a checksum differs.
    void read_into(const Lease& lease, std::span<const NamedBuffer> buffers) {
        const ReadRequest request{&lease, buffers};
        if (const auto error = read_each({&request, 1})[0]) std::rethrow_exception(error);
    }

    /// Several reads; one entry each, null where the read succeeded. A bad one does not stop the
    /// others. Bytes that lie in another process come in one batch, straight into the buffers.
    struct ReadRequest {
        const Lease* lease;
        std::span<const NamedBuffer> buffers;
    };
    std::vector<std::exception_ptr> read_each(std::span<const ReadRequest> requests) {
        core_->authenticate();
        std::vector<std::exception_ptr> status(requests.size());
        const auto each = [&](const auto& work) {
            for (std::size_t i = 0; i < requests.size(); ++i) {
                if (status[i]) continue;
                try {
                    work(i, *requests[i].lease, requests[i].buffers);
                } catch (...) {
                    status[i] = std::current_exception();
                }
            }
        };
        each([](std::size_t, const Lease& lease, auto buffers) {
            for (const auto& b : buffers)
                detail::check_buffer(b, lease.object_.tensors[index(lease, b.name)].tensor,
                                     lease.key_);
        });
        if constexpr (ReadsElsewhere<B>) {
            std::vector<ObjectRead> wishes;
            std::vector<std::size_t> whose;
            each([&](std::size_t i, const Lease& lease, auto buffers) {
                auto wish = detail::wish_for(lease.object_, buffers);
                if (wish.places.empty()) return;
                wishes.push_back(std::move(wish));
                whose.push_back(i);
            });
            const auto got = wishes.empty() ? std::vector<std::exception_ptr>{}
                                            : core_->backend.read_each(wishes);
            for (std::size_t w = 0; w < whose.size(); ++w) status[whose[w]] = got[w];
        }
        detail::SharedReads reads;  // copies what is in memory, verifies what came from elsewhere
        each([&](std::size_t i, const Lease& lease, auto buffers) {
            for (const auto& b : buffers)
                reads.add(i, lease.object_, index(lease, b.name), b.buffer.bytes(),
                          expected(lease, b.name), lease.key_);
        });
        reads.run(core_->policy.read_threads, status);
        each([&](std::size_t, const Lease&, auto buffers) {
            for (const auto& b : buffers) core_->count.bytes_read += b.buffer.bytes().size();
            core_->count.reads += 1;
        });
        return status;
    }

    /// Views without a copy, valid while the lease lives; checksums are verified as the policy
    /// says. Bytes that lie in another process or form are brought here at the first call. A view
    /// of a file on a network file system ends this process (SIGBUS) if it is touched while the
    /// file's server fails, here too where checksums are verified: use read_into() there.
    std::vector<NamedTensor> view(const Lease& lease) {
        core_->authenticate();
        detail::require_held(lease.object_, lease.key_);
        detail::bring_here(core_->backend, lease.object_);
        for (const auto& t : lease.object_.tensors)
            expected(lease, t.name).verify(t.tensor.bytes(), t.name, lease.key_);
        core_->count.reads += 1;
        return lease.object_.tensors;
    }

    /// The object as the backend opened it; nothing of it is verified, and tensors that lie in
    /// another process or form have no data.
    const StoredObject& stored(const Lease& lease) const { return lease.object_; }

    /// The sample was used. With consume-once its last release frees it: it is dead at once, and if
    /// the backend cannot remove it now, drain() tries again. Releasing an empty lease does
    /// nothing.
    void release(Lease&& lease) { lease.drop(true); }

    /// The same without a lease and without opening it: with consume-once the sample is freed when
    /// nobody here holds it (any more). True where it is gone; false where it is retained, held, or
    /// its removal pending. Throws ContractError for one that its place never removes.
    bool consume(const SampleRef& ref) {
        if (core_->policy.retain_on_release) return false;
        core_->authenticate();
        return core_->consume(detail::held_key(detail::located_key(ref)));
    }

    /// Frees objects older than `max_age` that this instance has no lease on. Returns how many.
    std::size_t collect(std::chrono::seconds max_age) {
        core_->authenticate();
        std::size_t freed = 0;
        for (const auto& o : core_->backend.objects()) {
            const auto key = detail::held_key(o.key);
            if (o.age_seconds <= static_cast<double>(max_age.count()) || !core_->leases.kill(key))
                continue;
            core_->remove(key);
            ++freed;
        }
        core_->count.collected += freed;
        return freed;
    }

    /// Tries pending removals again until none is left; ResourceError once `limit` has passed.
    void drain(std::chrono::milliseconds limit = std::chrono::seconds(10)) {
        const auto deadline = std::chrono::steady_clock::now() + limit;
        for (;;) {
            for (const auto& key : core_->leases.dead()) core_->remove(key);
            const auto left = core_->leases.dead();
            if (left.empty()) return;
            if (std::chrono::steady_clock::now() >= deadline)
                throw ResourceError(std::to_string(left.size()) +
                                        " removals are still pending, first sample '" +
                                        left[0].sample + "'",
                                    "Store::drain", "Check that the store's place can be written");
            std::this_thread::sleep_for(std::chrono::milliseconds(20));
        }
    }

    StoreHealth health() {
        StoreHealth h = core_->count.snapshot();
        const auto all = core_->backend.objects();
        h.resident_objects = all.size();
        for (const auto& o : all) {
            h.resident_bytes += o.bytes;
            h.oldest_age_seconds = std::max(h.oldest_age_seconds, o.age_seconds);
        }
        h.active_leases = core_->leases.active();
        h.pending_removals = core_->leases.dead().size();
        return h;
    }

    /// Makes memory ready, once, for reads over the backend's transport, while the result lives.
    template <class... Room>
    auto register_region(std::span<std::byte> memory,
                         Room&... room) requires RegistersMemory<B, Room...> {
        return core_->backend.register_region(memory, room...);
    }
    B& backend() { return core_->backend; }
    const StorePolicy& policy() const { return core_->policy; }

private:
    static std::size_t index(const Lease& lease, const std::string& name) {
        const auto& all = lease.object_.tensors;
        for (std::size_t i = 0; i < all.size(); ++i)
            if (all[i].name == name) return i;
        throw ContractError("unknown feature '" + name + "'", "sample '" + lease.key_.sample + "'",
                            "Ask for features that the ref names");
    }

    // What a feature's bytes are to be compared with; nothing where the policy does not want it.
    detail::ExpectedSums expected(const Lease& lease, const std::string& name) const {
        return core_->policy.verify_checksums ? detail::ExpectedSums::of(lease.object_, name)
                                              : detail::ExpectedSums{};
    }

    std::shared_ptr<Core> core_;
};

}  // namespace eyas
