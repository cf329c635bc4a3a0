#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <utility>

#include "eyas/sample/sample_ref.hpp"
#include "eyas/store/concept.hpp"
#include "eyas/store/packed_shard.hpp"

namespace eyas::detail {

/// The object that a ref names, and where the ref says that it lies.
inline ObjectKey located_key(const SampleRef& ref) {
    return {ref.sample_id, ref.generation(), ref.feature_store_uri};
}

/// What is held and freed is the object, however a ref spells its place: one that was put is known
/// by its generation, a packed one by its shard's name and identity. Files that were only found
/// have nothing but their place.
inline ObjectKey held_key(const ObjectKey& located) {
    if (located.generation > 0) return {located.sample, located.generation};
    if (auto shard = ShardLocation::parse(located.location); shard && shard->identity) {
        shard->file = shard->file.filename();
        return {located.sample, 0, shard->text()};
    }
    return located;
}

/// What a put may be refused for before a byte is looked at; returns the bytes of its tensors.
inline std::uint64_t checked_prototype(const SampleRef& ref, std::span<const NamedTensor> tensors) {
    const auto where = "sample '" + ref.sample_id + "'";
    if (ref.sample_id.empty())
        throw ContractError("empty sample id", "Store::put", "Give every sample an id");
    if (tensors.empty()) throw ContractError("no features", where, "Put at least one tensor");
    check_metadata(ref.metadata, where + ": metadata");
    std::uint64_t bytes = 0;
    for (const auto& t : tensors) bytes += t.tensor.size_bytes();
    return bytes;
}

/// The ref of a sample that was just put.
inline SampleRef complete_ref(SampleRef ref, std::span<const NamedTensor> tensors, std::string uri,
                              std::int64_t generation, std::uint64_t bytes) {
    ref.feature_store_uri = std::move(uri);
    ref.feature_keys.clear();
    ref.feature_specs.clear();
    for (const auto& t : tensors) {
        ref.feature_keys.emplace_back(t.name, ref.sample_id + "/" + t.name);
        ref.feature_specs.push_back(spec_of(t));
    }
    ref.estimated_bytes = static_cast<std::int64_t>(bytes);
    ref.metadata["generation"] = generation;
    return ref;
}

/// The stored object under the ref's feature names; all of it where the ref names none. Throws
/// DataError for a feature that is missing or differs from the ref's spec.
inline StoredObject features_of(const SampleRef& ref, StoredObject stored) {
    if (ref.feature_keys.empty()) return stored;
    StoredObject out{{}, {}, stored.keep, stored.file, {}, {}, stored.decode};
    const auto where = "sample '" + ref.sample_id + "'";
    for (const auto& [feature, unused] : ref.feature_keys) {
        const auto name = ref.stored_name(feature);
        const auto it = std::ranges::find(stored.tensors, name, &NamedTensor::name);
        if (it == stored.tensors.end())
            throw DataError("the stored object lacks feature '" + feature + "'", where,
                            "Ingest the sample again");
        const auto* spec = ref.find_spec(feature);
        if (spec && (spec->dtype != it->tensor.dtype || !(spec->shape == it->tensor.shape)))
            throw DataError("feature '" + feature + "' is " +
                                std::string(name_of(it->tensor.dtype)) + " " +
                                it->tensor.shape.text() + ", the ref says " +
                                std::string(name_of(spec->dtype)) + " " + spec->shape.text(),
                            where, "Use the manifest of this store");
        out.tensors.push_back({feature, it->tensor});
        out.places.push_back(static_cast<std::uint32_t>(it - stored.tensors.begin()));
        if (const auto sum = stored.checksums.find(it->name); sum != stored.checksums.end())
            out.checksums[feature] = sum->second;
        if (const auto sum = stored.crcs.find(it->name); sum != stored.crcs.end())
            out.crcs[feature] = sum->second;
    }
    return out;
}

}  // namespace eyas::detail
