#pragma once
#include <chrono>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "eyas/core/json.hpp"
#include "eyas/store/concept.hpp"

namespace eyas {

/// Objects in this process' memory. Copies made at publish(); readers share them. Thread-safe.
class Memory {
public:
    static constexpr std::string_view scheme = "memory";
    struct Options {
        std::string store_id = "memory";
    };

    explicit Memory(Options options) : options_(std::move(options)) {}

    std::int64_t publish(const std::string& sample, std::span<const NamedTensor> tensors,
                         const Checksums& checksums) {
        auto object = std::make_shared<Object>();
        for (const auto& t : tensors) {
            object->owned.push_back(Tensor::copy_of(t.tensor));
            object->stored.tensors.push_back({t.name, object->owned.back()});
            object->bytes += t.tensor.size_bytes();
        }
        object->stored.checksums = checksums;
        const std::lock_guard lock(mutex_);
        auto& last = generations_[sample];
        std::erase_if(objects_, [&](const auto& entry) { return entry.first.sample == sample; });
        objects_[{sample, ++last}] = std::move(object);
        return last;
    }

    StoredObject open(const ObjectKey& key, bool) const {
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
    std::string uri(const ObjectKey& key) const {
        return "memory://" + options_.store_id + "/" + key.sample;
    }

    std::optional<std::string> credential_record() const {
        const std::lock_guard lock(mutex_);
        return credential_;
    }
    void set_credential_record(const std::string& record) {
        const std::lock_guard lock(mutex_);
        credential_ = record;
    }

private:
    struct Object {
        std::vector<Tensor> owned;
        StoredObject stored;
        std::uint64_t bytes = 0;
        std::chrono::steady_clock::time_point published = std::chrono::steady_clock::now();
    };

    Options options_;
    mutable std::mutex mutex_;
    std::map<ObjectKey, std::shared_ptr<Object>> objects_;
    std::map<std::string, std::int64_t> generations_;  // last one given, also of erased samples
    std::optional<std::string> credential_;
};
static_assert(StoreBackend<Memory>);

}  // namespace eyas
