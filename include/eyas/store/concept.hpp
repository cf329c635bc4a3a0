#pragma once
#include <concepts>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "eyas/core/tensor.hpp"

namespace eyas {

/// Names one immutable object: all features of one generation of one sample. `location` is the URI
/// in the ref, for objects that a backend did not put itself (generation 0).
struct ObjectKey {
    std::string sample;
    std::int64_t generation = 0;
    std::string location = {};

    friend auto operator<=>(const ObjectKey&, const ObjectKey&) = default;
};

/// XXH3-64 of each feature's bytes, by stored name.
using Checksums = std::map<std::string, std::uint64_t>;

/// An opened object: views that stay valid as long as `keep` does, even after the object was
/// erased.
struct StoredObject {
    std::vector<NamedTensor> tensors;
    Checksums checksums;               // empty where the payload has its own, verified on opening
    std::shared_ptr<const void> keep;  // mapping or memory behind the views
};

/// An object that lies in a backend.
struct ObjectInfo {
    ObjectKey key;
    std::uint64_t bytes = 0;
    double age_seconds = 0;  // since it was published
};

struct Usage {
    std::uint64_t objects = 0, bytes = 0;
};

/// What a backend must offer. It keeps immutable objects and knows nothing of leases, retention,
/// credentials' meaning, checksums' meaning, quota or metrics: Store<B> writes those once.
/// All calls may come from several threads at once, and other processes may use the same place.
template <class B>
concept StoreBackend = std::constructible_from<B, typename B::Options> &&
    requires(B& b, const ObjectKey& key, const std::string& text,
             std::span<const NamedTensor> tensors, const Checksums& checksums, bool verify) {
    { B::scheme } -> std::convertible_to<std::string_view>;
    // Publishes all features or none, as the sample's next generation, and returns that (from 1
    // on). Earlier generations are no longer current and are erased. ResourceError when there is no
    // room.
    { b.publish(text, tensors, checksums) } -> std::same_as<std::int64_t>;
    // Opens an object; `verify` asks for the payload's own checksums. StaleReferenceError when this
    // generation is gone, DataError when its bytes are bad.
    { b.open(key, verify) } -> std::same_as<StoredObject>;
    // Removes an object; no error when there is none. ResourceError when it cannot be removed now.
    b.erase(key);
    { b.objects() } -> std::same_as<std::vector<ObjectInfo>>;
    { b.usage() } -> std::same_as<Usage>;
    { b.uri(key) } -> std::same_as<std::string>;  // for the ref
    // The record that proves a credential (not the credential), if one was set.
    { b.credential_record() } -> std::same_as<std::optional<std::string>>;
    b.set_credential_record(text);
};

}  // namespace eyas
