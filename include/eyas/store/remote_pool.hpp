#pragma once
#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "eyas/core/checksum.hpp"
#include "eyas/store/credential.hpp"
#include "eyas/store/remote_mapping.hpp"
#include "eyas/store/remote_protocol.hpp"
#include "eyas/transport/transport.hpp"

namespace eyas {

/// Objects of a pool that another process serves (PoolService), over a Transport. Reads go straight
/// into the caller's memory; from a pool on the same machine (eyas+unix://) objects are mapped and
/// nothing is copied. Refs carry the pool's own URIs, so a manifest is good wherever its store is
/// reached from. Thread-safe.
///
/// Failure: a lost link is made again and what can be repeated is; TransportError at the deadline;
/// OwnerLostError when the pool was there and is gone. A lease outlives a lost link where the pool
/// still has the object (StaleReferenceError where not). A client's leases end with it.
template <class T>
class RemotePool {
    using Client = typename T::Client;

public:
    static constexpr std::string_view scheme = "eyas";
    struct Options {
        Address address;
        ClientOptions client = {};
        typename T::Options transport = typename T::Options();
    };

    /// Connects: throws AuthenticationError, TransportError.
    explicit RemotePool(Options options)
        : transport_(std::move(options.transport)),
          core_(std::make_shared<Core>(transport_.client(options.address, options.client))) {
        if (!options.client.auth_token.empty())
            record_ = detail::make_credential_record(options.client.auth_token);
        call_after_closing(nullptr);  // connects
    }

    std::int64_t publish(const std::string& sample, std::span<const NamedTensor> tensors,
                         const Checksums& checksums) {
        detail::PutRecord p{.token = core_->next_put++, .sample = sample, .tensors = {}};
        std::vector<std::span<const std::byte>> parts;
        for (const auto& t : tensors) {
            const auto sum = checksums.find(t.name);
            p.tensors.push_back({t.name, t.tensor.dtype, t.tensor.shape,
                                 sum == checksums.end() ? xxh3(t.tensor.bytes()) : sum->second});
            parts.push_back(t.tensor.bytes());
        }
        auto w = request(detail::Operation::Put);
        p.write(w);
        std::int64_t generation = 0;
        core_->client->call(
            {.head = w.bytes(), .parts = parts, .answer = [&](InMessage&, auto head, const auto&) {
                 auto r = reader(head);
                 generation = r.template get<std::int64_t>();
                 r.end();
             }});
        return generation;
    }

    StoredObject open(const ObjectKey& key, bool) {
        auto handle = std::make_shared<Handle>(core_, key);
        const auto o = open_remote(*handle);
        StoredObject object;
        for (const auto& t : o.tensors) {
            const auto* data = handle->map ? handle->map->bytes().data() + t.offset : nullptr;
            object.tensors.push_back({t.name, {data, t.dtype, t.shape}});
            object.checksums[t.name] = t.checksum;
        }
        if (handle->map) object.file.mapping = handle->map->bytes();
        object.keep = std::move(handle);
        return object;
    }

    std::vector<std::exception_ptr> read_each(std::span<const ObjectRead> reads) {
        std::vector<std::exception_ptr> status(reads.size());
        std::vector<std::size_t> all(reads.size());
        for (std::size_t i = 0; i < all.size(); ++i) all[i] = i;
        std::vector<std::size_t> forgotten = read_some(reads, all, status), again;
        for (const auto i : forgotten) {  // by a restarted pool, or with a lost session
            try {
                open_remote(handle_of(reads[i]));
                again.push_back(i);
            } catch (const Error&) {
                status[i] = std::current_exception();
            }
        }
        for (const auto i : read_some(reads, again, status))
            status[i] = std::make_exception_ptr(
                TransportError("the pool forgets what it opens", where(), "Look at its log"));
        return status;
    }

    void erase(const ObjectKey& key) {
        auto w = request(detail::Operation::Erase);
        detail::write_key(w, key);
        const Call call{.head = w.bytes()};
        call_after_closing(&call);
    }

    std::vector<ObjectInfo> objects() {
        const auto w = request(detail::Operation::Objects);
        std::vector<ObjectInfo> all;
        core_->client->call(
            {.head = w.bytes(), .answer = [&](InMessage& m, auto head, const auto& take) {
                 auto r = reader(head);
                 const auto count = r.template get<std::uint64_t>();
                 r.end();
                 if (m.parts.size() != 1 || m.parts[0] > most_listed) r.fail("not a list");
                 std::vector<std::byte> list(m.parts[0]);
                 const std::span<std::byte> place[] = {list};
                 take(place);
                 all = detail::read_objects(list, count, where());
             }});
        return all;
    }

    Usage usage() { return detail::usage_of(objects()); }

    std::string uri(const ObjectKey& key) {
        auto w = request(detail::Operation::Uri);
        detail::write_key(w, key);
        std::string text;
        core_->client->call({.head = w.bytes(), .answer = [&](InMessage&, auto head, const auto&) {
                                 auto r = reader(head);
                                 text = r.text();
                                 r.end();
                             }});
        return text;
    }

    /// Of the token that the transport proved to the pool, and the pool to us.
    std::optional<std::string> credential_record() const { return record_; }
    void set_credential_record(const std::string&) {
        throw AuthenticationError("a pool's token is set where it is served", where(),
                                  "Give the same token to the pool and to its clients");
    }

    /// Ends reads that wait, for instance to stop a loader; they throw TransportError until
    /// resume().
    void cancel() { core_->client->cancel(); }
    void resume() { core_->client->resume(); }

    Client& client() { return *core_->client; }

    /// Memory that reads will go to, made ready once; keep the result as long as the memory.
    template <class... Room>
    auto register_region(std::span<std::byte> memory, Room&... room)
        -> decltype(std::declval<T&>().backend().register_region(memory, room...)) {
        return transport_.backend().register_region(memory, room...);
    }

private:
    struct Core {
        explicit Core(std::unique_ptr<Client> c) : client(std::move(c)) {}
        std::unique_ptr<Client> client;
        // Tokens of puts; other clients' are other numbers.
        std::atomic<std::uint64_t> next_put = detail::random_u64();
        std::mutex mutex;
        std::vector<std::uint64_t> finished;  // leases to close with the next call
        detail::FileMaps maps;
    };

    /// What keeps an opened object: its lease over there, or its mapping here. Giving it back never
    /// waits for the pool: the next call tells it.
    struct Handle {
        Handle(std::shared_ptr<Core> c, ObjectKey k) : core(std::move(c)), key(std::move(k)) {}
        ~Handle() {
            const std::lock_guard lock(core->mutex);
            if (lease) core->finished.push_back(*lease);
        }
        std::shared_ptr<Core> core;
        ObjectKey key;
        std::optional<std::uint64_t> lease = {};
        std::vector<std::uint64_t> sizes = {};  // bytes of each tensor
        std::shared_ptr<const detail::FileMap> map = {};
    };

    static constexpr std::uint64_t most_listed = std::uint64_t{1} << 30;  // bytes

    static detail::WireWriter request(detail::Operation o) {
        detail::WireWriter w;
        w.put(static_cast<std::uint8_t>(o));
        return w;
    }
    std::string where() const { return core_->client->address().text(); }
    detail::WireReader reader(std::span<const std::byte> head) const { return {head, where()}; }
    static Handle& handle_of(const ObjectRead& read) {
        return *const_cast<Handle*>(static_cast<const Handle*>(read.object->keep.get()));
    }

    // Asks for the object (again) and notes its lease; the tensors must be those of the first time.
    detail::OpenedRecord open_remote(Handle& h) {
        auto w = request(detail::Operation::Open);
        detail::write_key(w, h.key);
        detail::OpenedRecord o;
        detail::Fd file;
        const Call call{.head = w.bytes(), .answer = [&](InMessage& m, auto head, const auto&) {
                            auto r = reader(head);
                            o = detail::OpenedRecord::read(r);
                            file = std::move(m.descriptor);
                        }};
        call_after_closing(&call);
        std::vector<std::uint64_t> sizes;
        for (const auto& t : o.tensors) sizes.push_back(t.bytes());
        if (!h.sizes.empty() && sizes != h.sizes)
            throw DataError("the object changed while it was leased", where(),
                            "Open the sample again");
        h.lease = o.lease;
        h.sizes = std::move(sizes);
        if (file && o.file_bytes > 0)
            h.map = core_->maps.map(std::move(file), o.file_bytes, where());
        return o;
    }

    // Which of them the pool knows no lease of.
    std::vector<std::size_t> read_some(std::span<const ObjectRead> reads,
                                       const std::vector<std::size_t>& which,
                                       std::vector<std::exception_ptr>& status) {
        std::vector<detail::WireWriter> heads;
        std::vector<Call> calls;
        std::vector<char> known(which.size(), 1);
        heads.reserve(which.size());
        for (std::size_t k = 0; k < which.size(); ++k) {
            const auto& read = reads[which[k]];
            auto& w = heads.emplace_back(request(detail::Operation::Read));
            w.put(*handle_of(read).lease).put(static_cast<std::uint32_t>(read.places.size()));
            for (const auto p : read.places) w.put(p);
            calls.push_back({.head = w.bytes(),
                             .answer = [this, &read, &here = known[k]](InMessage& m, auto head,
                                                                       const auto& take) {
                                 auto r = reader(head);
                                 here = r.template get<std::uint8_t>() == 1;
                                 r.end();
                                 if (here) take_exactly(m, read, take);
                             }});
        }
        const auto errors = core_->client->call_each(calls);
        std::vector<std::size_t> forgotten;
        for (std::size_t k = 0; k < which.size(); ++k) {
            status[which[k]] = errors[k];
            if (!errors[k] && !known[k]) forgotten.push_back(which[k]);
        }
        return forgotten;
    }

    void take_exactly(InMessage& m, const ObjectRead& read, const Call::Take& take) const {
        bool same = m.parts.size() == read.into.size();
        for (std::size_t i = 0; same && i < m.parts.size(); ++i)
            same = m.parts[i] == read.into[i].size();
        if (!same)
            throw DataError("other sizes than the object's", where(),
                            "Check that both sides run the same version of eyas");
        take(read.into);
    }

    /// Tells which leases ended, and makes a call if one is given, in one round trip.
    void call_after_closing(const Call* next) {
        std::vector<std::uint64_t> ids;
        {
            const std::lock_guard lock(core_->mutex);
            ids.swap(core_->finished);
            if (ids.size() > detail::most_closed) {
                core_->finished.assign(ids.begin() + detail::most_closed, ids.end());
                ids.resize(detail::most_closed);
            }
        }
        auto w = request(detail::Operation::Close);
        w.put(static_cast<std::uint32_t>(ids.size()));
        for (const auto id : ids) w.put(id);
        std::vector<Call> calls;
        if (!ids.empty() || !next) calls.push_back({.head = w.bytes()});
        if (next) calls.push_back(*next);
        const auto errors = core_->client->call_each(calls);
        if (!ids.empty() && errors.front()) {  // the next call tells of them
            const std::lock_guard lock(core_->mutex);
            core_->finished.insert(core_->finished.end(), ids.begin(), ids.end());
        }
        if (errors.back()) std::rethrow_exception(errors.back());
    }

    T transport_;
    std::shared_ptr<Core> core_;
    std::optional<std::string> record_;
};

}  // namespace eyas
