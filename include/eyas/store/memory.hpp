#pragma once
#include <chrono>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "eyas/core/random_id.hpp"
#include "eyas/core/shared_arena.hpp"
#include "eyas/store/concept.hpp"

namespace eyas {

/// Objects in this process' memory, in files without a name that a pool can hand to clients on the
/// same machine. Copies made at publish(); readers share them. Thread-safe.
class Memory {
public:
    static constexpr std::string_view scheme = "memory";
    struct Options {
        std::string store_id = "memory";
    };

    explicit Memory(Options options) : options_(std::move(options)) {}

    std::int64_t publish(const std::string& sample, std::span<const NamedTensor> tensors,
                         const Checksums& checksums) {
        const auto object = std::make_shared<Object>(copy(tensors));
        object->stored.checksums = checksums;
        const std::lock_guard lock(mutex_);
        auto& last = generations_[sample];
        std::erase_if(objects_, [&](const auto& entry) { return entry.first.sample == sample; });
        objects_[{sample, ++last}] = object;
        return last;
    }

    StoredObject open(const ObjectKey& key, bool) const {
        if (!key.location.empty() && !key.location.starts_with(prefix()))
            throw StaleReferenceError("the ref is of another store or process: " + key.location,
                                      "sample '" + key.sample + "' in " + prefix(),
                                      "What lay in memory went with its process; put it again");
        const std::lock_guard lock(mutex_);
        const auto it = objects_.find({key.sample, key.generation});
        if (it == objects_.end())
            throw StaleReferenceError("generation " + std::to_string(key.generation) + " is gone",
                                      "sample '" + key.sample + "'",
                                      "It was consumed or put again; use the newest manifest");
        auto out = it->second->stored;
        out.keep = it->second;
        return out;
    }

    void erase(const ObjectKey& key) {
        const std::lock_guard lock(mutex_);
        objects_.erase({key.sample, key.generation});
    }

    std::vector<ObjectInfo> objects() const {
        const std::lock_guard lock(mutex_);
        std::vector<ObjectInfo> all;
        for (const auto& [key, o] : objects_)
            all.push_back(
                {key, o->bytes,
                 std::chrono::duration<double>(std::chrono::steady_clock::now() - o->published)
                     .count()});
        return all;
    }
    Usage usage() const {
        const std::lock_guard lock(mutex_);
        Usage u{objects_.size(), 0};
        for (const auto& [unused, o] : objects_) u.bytes += o->bytes;
        return u;
    }
    std::string uri(const ObjectKey& key) const { return prefix() + key.sample; }

    std::optional<std::string> credential_record() const {
        const std::lock_guard lock(mutex_);
        return credential_;
    }
    void set_credential_record(const std::string& record) {
        const std::lock_guard lock(mutex_);
        if (!credential_ && objects_.empty()) credential_ = record;
    }

private:
    struct Object {
        SharedArena::Block block;
        StoredObject stored = {};
        std::uint64_t bytes = 0;
        std::chrono::steady_clock::time_point published = std::chrono::steady_clock::now();
    };

    std::string prefix() const { return "memory://" + options_.store_id + "." + epoch_ + "/"; }

    /// All tensors in one block, each aligned for its type.
    Object copy(std::span<const NamedTensor> tensors) {
        const auto rounded = [](std::size_t n) { return (n + 63) / 64 * 64; };
        std::size_t total = 0;
        for (const auto& t : tensors) total += rounded(t.tensor.size_bytes());
        Object o{.block = arena_.allocate(total)};
        auto* at = o.block.bytes().data();
        for (const auto& t : tensors) {
            if (const auto n = t.tensor.size_bytes()) std::memcpy(at, t.tensor.data, n);
            o.stored.tensors.push_back({t.name, {at, t.tensor.dtype, t.tensor.shape}});
            o.bytes += t.tensor.size_bytes();
            at += rounded(t.tensor.size_bytes());
        }
        o.stored.file = {o.block.descriptor(), o.block.segment(), false, true};
        return o;
    }

    Options options_;
    std::string epoch_ =
        detail::random_hex();  // refs of another process' memory are told apart by it
    SharedArena arena_;
    mutable std::mutex mutex_;
    std::map<ObjectKey, std::shared_ptr<Object>> objects_;
    std::map<std::string, std::int64_t> generations_;  // last one given, also of erased samples
    std::optional<std::string> credential_;
};
static_assert(StoreBackend<Memory>);

}  // namespace eyas
