#pragma once
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "eyas/core/checksum.hpp"
#include "eyas/store/put_once.hpp"
#include "eyas/store/remote_protocol.hpp"
#include "eyas/store/store.hpp"
#include "eyas/transport/server.hpp"

namespace eyas {

/// Serves a store to other processes, as the service of a Transport's server. A client's leases are
/// its session's: they go when its last link does. Bytes are sent from where the store has them,
/// without a copy; clients on the same machine get the file that holds them instead. Thread-safe;
/// the store must outlive it.
///
///   Store<Memory> store({});
///   PoolService service(store);
///   const auto server = Transport<Posix>().serve(address, service, {.auth_token = token});
template <class S>
class PoolService {
    using Lease = typename S::Lease;

public:
    struct Session {
        std::mutex mutex;
        std::map<std::uint64_t, std::shared_ptr<const Lease>> leases;
    };

    explicit PoolService(S& store) : store_(store) {}

    std::shared_ptr<Session> open_session() { return std::make_shared<Session>(); }

    void serve(Session& session, Request& request) {
        detail::WireReader r(request.head(), request.peer());
        const auto operation = static_cast<detail::Operation>(r.get<std::uint8_t>());
        if (!request.parts().empty() && operation != detail::Operation::Put)
            r.fail("bytes with a request that has none");
        switch (operation) {
            case detail::Operation::Open:
                return open(session, request, r);
            case detail::Operation::Read:
                return read(session, request, r);
            case detail::Operation::Close:
                return close(session, request, r);
            case detail::Operation::Put:
                return put(request, r);
            case detail::Operation::Erase:
                return erase(request, r);
            case detail::Operation::Objects:
                return objects(request, r);
            case detail::Operation::Uri:
                return uri(request, r);
        }
        r.fail("unknown operation");
    }

    /// Leases that clients hold now.
    std::uint64_t leases() const { return leases_; }
    std::uint64_t bytes_sent() const { return bytes_sent_; }  // through links, not through files

private:
    void open(Session& session, Request& request, detail::WireReader& r) {
        const auto key = detail::read_key(r);
        r.end();
        SampleRef ref{.sample_id = key.sample, .run_id = {}, .feature_store_uri = key.location};
        if (key.generation > 0) ref.metadata["generation"] = key.generation;
        const auto lease = counted(store_.acquire(ref));
        const auto& object = store_.stored(*lease);
        detail::OpenedRecord o{.lease = next_lease_++};
        const bool mapped = request.passes_descriptors() && can_be_mapped(object);
        if (mapped) o.file_bytes = object.file.mapping.size();
        for (std::size_t i = 0; i < object.tensors.size(); ++i) {
            const auto& t = object.tensors[i];
            o.tensors.push_back(
                {t.name, t.tensor.dtype, t.tensor.shape, checksum_of(object, i, lease->key()),
                 mapped ? static_cast<std::uint64_t>(t.tensor.data - object.file.mapping.data())
                        : 0});
        }
        detail::WireWriter w;
        o.write(w);
        {
            const std::lock_guard lock(session.mutex);
            session.leases.emplace(o.lease, lease);
        }
        try {
            request.reply(w.bytes(), {}, mapped ? object.file.descriptor : -1);
        } catch (...) {  // nobody knows its number
            const std::lock_guard lock(session.mutex);
            session.leases.erase(o.lease);
            throw;
        }
    }

    // The store's, or one made here after the payload's own was compared. (States in float8 are
    // decoded for it, and again when they are sent: keeping them would cost the pool's memory.)
    static std::uint64_t checksum_of(const StoredObject& object, std::size_t i,
                                     const ObjectKey& key) {
        const auto& name = object.tensors[i].name;
        auto expected = detail::ExpectedSums::of(object, name);
        if (expected.xxh3) return *expected.xxh3;
        RunningSums sums(true, expected.crc32.has_value());
        Tensor memory;
        sums(detail::readable(object, i, memory).bytes());
        expected.require(sums, name, key);
        return sums.xxh3();
    }

    void read(Session& session, Request& request, detail::WireReader& r) {
        const auto id = r.get<std::uint64_t>();
        std::vector<std::uint32_t> places(r.count(detail::most_tensors, sizeof(std::uint32_t)));
        for (auto& p : places) p = r.get<std::uint32_t>();
        r.end();
        std::shared_ptr<const Lease> lease;
        {
            const std::lock_guard lock(session.mutex);
            if (const auto it = session.leases.find(id); it != session.leases.end())
                lease = it->second;
        }
        detail::WireWriter w;
        w.put(static_cast<std::uint8_t>(lease != nullptr));
        if (!lease) return request.reply(w.bytes());
        const auto& object = store_.stored(*lease);
        const auto& tensors = object.tensors;
        std::vector<Tensor> memory(tensors.size());     // of what is not sent from where it lies
        std::vector<TensorView> ready(tensors.size());  // once each, however often it is asked for
        std::vector<std::span<const std::byte>> parts;
        for (const auto p : places) {
            if (p >= tensors.size()) r.fail("tensor " + std::to_string(p) + " of an object");
            if (!ready[p].data) ready[p] = detail::readable(object, p, memory[p]);
            parts.push_back(ready[p].bytes());
            bytes_sent_ += parts.back().size();
        }
        request.reply(w.bytes(), parts);
    }

    void close(Session& session, Request& request, detail::WireReader& r) {
        std::vector<std::uint64_t> ids(r.count(detail::most_closed, sizeof(std::uint64_t)));
        for (auto& id : ids) id = r.get<std::uint64_t>();
        r.end();
        {
            const std::lock_guard lock(session.mutex);
            for (const auto id : ids) session.leases.erase(id);
        }
        request.reply({});
    }

    void put(Request& request, detail::WireReader& r) {
        const auto p = detail::PutRecord::read(r);
        const auto& sizes = request.parts();
        if (sizes.size() != p.tensors.size()) r.fail("tensors without bytes, or the reverse");
        std::vector<Tensor> memory;
        std::vector<NamedTensor> tensors;
        std::vector<std::span<std::byte>> places;
        Checksums sums;
        std::uint64_t total = 0;
        for (std::size_t i = 0; i < sizes.size(); ++i) {
            const auto& t = p.tensors[i];
            if (sizes[i] != t.bytes()) r.fail("bytes that do not fit tensor '" + t.name + "'");
            require_room(total += sizes[i], p.sample);
            memory.emplace_back(t.dtype, t.shape);
            tensors.push_back({t.name, memory.back()});
            places.push_back(memory.back().mutable_view().bytes());
            sums[t.name] = t.checksum;
        }
        request.take(places);
        detail::WireWriter w;
        w.put(puts_(p.token, request.limit(), request.peer(), [&] {
            return store_.put({.sample_id = p.sample, .run_id = {}}, tensors, {.announced = &sums})
                .generation();
        }));
        request.reply(w.bytes());
    }

    void erase(Request& request, detail::WireReader& r) {
        const auto key = detail::read_key(r);
        r.end();
        store_.backend().erase(key);
        request.reply({});
    }

    void objects(Request& request, detail::WireReader& r) {
        r.end();
        const auto all = store_.backend().objects();
        detail::WireWriter list, w;
        detail::write_objects(list, all);
        w.put(static_cast<std::uint64_t>(all.size()));
        const std::span<const std::byte> parts[] = {list.bytes()};
        request.reply(w.bytes(), parts);
    }

    void uri(Request& request, detail::WireReader& r) {
        const auto key = detail::read_key(r);
        r.end();
        detail::WireWriter w;
        w.text(store_.backend().uri(key));
        request.reply(w.bytes());
    }

    // By a client: what lies on a network file system is sent, since mapping it could end both.
    static bool can_be_mapped(const StoredObject& o) {
        return o.file.descriptor >= 0 && !o.file.on_network &&
               std::ranges::all_of(o.tensors, [&](const NamedTensor& t) {
                   return t.tensor.bytes().empty() || detail::lies_in(o.file, t.tensor);
               });
    }

    void require_room(std::uint64_t bytes, const std::string& sample) const {
        if (const auto quota = store_.policy().quota_bytes; quota && bytes > *quota)
            throw ResourceError(std::to_string(bytes) + " bytes pass the quota",
                                "sample '" + sample + "'", "Raise the pool's quota");
    }

    // The lease and its share of the count go together, whoever lets go last.
    std::shared_ptr<const Lease> counted(Lease lease) {
        leases_ += 1;
        return {new Lease(std::move(lease)), [this](const Lease* l) {
                    delete l;
                    leases_ -= 1;
                }};
    }

    S& store_;
    // A random start: numbers of an earlier process are unknown here.
    std::atomic<std::uint64_t> next_lease_ = detail::random_u64();
    std::atomic<std::uint64_t> leases_ = 0, bytes_sent_ = 0;
    detail::PutOnce puts_;
};

}  // namespace eyas
