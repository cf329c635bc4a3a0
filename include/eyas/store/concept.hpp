#pragma once
#include <concepts>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <functional>
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

/// Checksums that come with a put.
struct GivenChecksums {
    const Checksums* announced = nullptr;  // that the bytes must have; DataError where not
    const Checksums* known = nullptr;      // that the caller took of these bytes: not taken again
};

/// CRC-32 of each feature's bytes, by stored name, where the payload's format has that instead.
using Crcs = std::map<std::string, std::uint32_t>;

/// A file that holds an object's bytes and may be mapped by another process on this machine.
struct MappableFile {
    int descriptor = -1;                      // open as long as the object's `keep` lives
    std::span<const std::byte> mapping = {};  // all of it, as it is mapped here
    bool on_network = false;                  // its server may fail: MappedFile::on_network()
    bool is_memory = false;                   // its pages are this process' own memory
};

/// An opened object: views that stay valid as long as `keep` does, even after the object was
/// erased. Views without an address (data is null) are of bytes that lie elsewhere (ReadsElsewhere)
/// or in another form (`decode`).
struct StoredObject {
    std::vector<NamedTensor> tensors;
    Checksums checksums;                     // of some or all tensors; whoever reads compares them
    std::shared_ptr<const void> keep;        // mapping or memory behind the views
    MappableFile file = {};                  // where the views lie in one
    Crcs crcs = {};                          // of tensors without a checksum, compared likewise
    std::vector<std::uint32_t> places = {};  // of each tensor in what the backend opened; empty: 0…
    /// Writes the bytes of the tensor at a place, which has no data, into memory of its size.
    /// Throws DataError where what it decodes is damaged. From several threads.
    std::function<void(std::uint32_t place, std::span<std::byte> to)> decode = {};
};

namespace detail {
/// Of an object's tensor in what the backend opened.
inline std::uint32_t place_of(const StoredObject& object, std::size_t i) {
    return object.places.empty() ? static_cast<std::uint32_t>(i) : object.places[i];
}
}  // namespace detail

/// A wish for bytes that lie elsewhere: tensors of one object, by place, into the caller's memory.
struct ObjectRead {
    const StoredObject* object = nullptr;
    std::vector<std::uint32_t> places = {};
    std::vector<std::span<std::byte>> into = {};
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

namespace detail {
inline Usage usage_of(const std::vector<ObjectInfo>& all) {
    Usage u;
    for (const auto& o : all) ++u.objects, u.bytes += o.bytes;
    return u;
}
}  // namespace detail

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
    // Opens an object; `verify` asks for the payload's own checksums: compared at once, told (crcs)
    // to whoever reads, or compared by `decode`. StaleReferenceError when this generation is gone,
    // DataError when its bytes are bad.
    { b.open(key, verify) } -> std::same_as<StoredObject>;
    // Removes an object; no error when there is none. ResourceError when it cannot be removed now,
    // ContractError where such objects are never removed.
    b.erase(key);
    { b.objects() } -> std::same_as<std::vector<ObjectInfo>>;
    { b.usage() } -> std::same_as<Usage>;
    { b.uri(key) } -> std::same_as<std::string>;  // for the ref
    // The record that proves a credential (not the credential), if one was set.
    { b.credential_record() } -> std::same_as<std::optional<std::string>>;
    // Sets it where there is neither one nor an object, in one step: of several openers of an empty
    // place the first gives it its credential. Else nothing.
    b.set_credential_record(text);
};

/// A backend whose objects lie in another process: it opens views without an address and reads
/// several objects at once straight into the caller's memory. One entry each, null where the read
/// succeeded.
template <class B>
concept ReadsElsewhere = StoreBackend<B> && requires(B& b, std::span<const ObjectRead> reads) {
    { b.read_each(reads) } -> std::same_as<std::vector<std::exception_ptr>>;
};

/// A backend that wants memory which is read into again and again to be made ready once. `Room`: a
/// DeviceRoom, where that is memory of a device, which ReadsElsewhere may then fill.
template <class B, class... Room>
concept RegistersMemory = StoreBackend<B> &&
    requires(B& b, std::span<std::byte> memory, Room&... room) {
    { b.register_region(memory, room...) } -> std::movable;  // undone when the result goes
};

/// A file that is to become an object without a copy: open, and found to hold a sample.
struct AdoptedFile {
    std::filesystem::path path;  // for messages
    int descriptor = -1;
};

/// A backend that takes a file of its own file system as it is, as the sample's next generation,
/// under the same rules as publish(). ResourceError where the file lies elsewhere.
template <class B>
concept AdoptsFiles = StoreBackend<B> &&
    requires(B& b, const std::string& sample, const AdoptedFile& file) {
    { b.adopt(sample, file) } -> std::same_as<std::int64_t>;
};

}  // namespace eyas
