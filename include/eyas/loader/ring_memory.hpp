#pragma once
#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include "eyas/core/error.hpp"
#include "eyas/loader/collate.hpp"
#include "eyas/loader/options.hpp"

namespace eyas::detail {

struct UnmapMemory {
    std::size_t size = 0;
    void operator()(std::byte* p) const { ::munmap(p, size); }
};

/// The memory of a loader's ring: one piece, cut into equal slots, made ready for the store's
/// transport once (a registration costs more than the transfer of a sample).
class RingMemory {
public:
    RingMemory() = default;
    /// Throws ResourceError when there is no memory.
    RingMemory(std::size_t slots, std::size_t slot_bytes) : slot_bytes_(slot_bytes) {
        size_ = slots * slot_bytes;
        void* p = ::mmap(nullptr, size_, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (p == MAP_FAILED)
            throw ResourceError("no memory for a ring of " + std::to_string(size_) + " bytes",
                                "Loader", "Use a smaller batch, max_len or prefetch");
        ::madvise(p, size_, MADV_HUGEPAGE);  // helps, need not succeed
        memory_ = {static_cast<std::byte*>(p), UnmapMemory{size_}};
    }

    std::span<std::byte> bytes() const { return {memory_.get(), size_}; }
    std::span<std::byte> slot(std::size_t i) const {
        return bytes().subspan(i * slot_bytes_, slot_bytes_);
    }
    bool empty() const { return !memory_; }

private:
    std::unique_ptr<std::byte, UnmapMemory> memory_;
    std::size_t size_ = 0, slot_bytes_ = 0;
};

/// A loader's ring of states in memory of a device; as large as the one of the host, whose pages
/// for states are never touched then.
class StatesRing {
public:
    StatesRing() = default;
    StatesRing(const RingMemory& host, DeviceRoom& room)
        : memory_(DType::U8, {static_cast<std::int64_t>(host.bytes().size())}, &room),
          slot_bytes_(host.slot(0).size()) {}

    std::span<std::byte> bytes() { return memory_.mutable_view().bytes(); }
    std::span<std::byte> slot(std::size_t i) {
        return bytes().subspan(i * slot_bytes_, slot_bytes_);
    }

private:
    Tensor memory_;
    std::size_t slot_bytes_ = 0;
};

/// Throws ContractError where states cannot lie in memory of a device, though the store reads into
/// that: a ring without a size, or checksums that the host would compare there.
template <class S>
void check_states(const S& store, const RingMemory& host) {
    if (host.empty())
        throw ContractError("states in memory of a device, in a ring of unknown size",
                            "LoaderOptions::ring_bytes", "Say how large it is");
    if constexpr (requires { store.policy().verify_checksums; })
        if (store.policy().verify_checksums)
            throw ContractError("the host cannot verify checksums in memory of a device",
                                "LoaderOptions::states",
                                "Set StorePolicy::verify_checksums to false, or leave states in "
                                "the host's memory");
}

/// Bytes of the largest batch that these refs can make: all rows as long as the longest sample
/// after the cut and padded, or packed full. 0 where a ref has no specs, so that it cannot be
/// known.
inline std::uint64_t largest_batch_bytes(const Manifest& manifest, const LoaderOptions& o) {
    std::int64_t rows = 0;
    FeatureLayout layout;
    for (const auto& ref : manifest.refs) {
        if (ref.feature_specs.empty()) return 0;
        layout = feature_layout(ref.feature_specs, ref.sample_id);
        rows = std::max(rows, std::min(layout.rows, o.max_len));
    }
    return BatchArena::bytes_for(o.batch_size, o.packed() ? o.pack_tokens : o.padded(rows),
                                 layout.width, layout.dtype, o.packed());
}

/// The ring for `slots` batches: of ring_bytes where that is given, as large as it has to be where
/// the refs tell, nothing (batches then get memory of their own) where neither is. Throws
/// ContractError for a ring that the largest batch does not fit.
inline RingMemory make_ring(const Manifest& manifest, const LoaderOptions& o, std::size_t slots) {
    constexpr std::size_t page = 4096;
    const auto needed = static_cast<std::size_t>(largest_batch_bytes(manifest, o));
    auto slot = (needed + page - 1) / page * page;
    if (o.ring_bytes > 0) {
        const auto given = static_cast<std::size_t>(o.ring_bytes) / slots / page * page;
        if (given < slot || given == 0)
            throw ContractError("a ring of " + std::to_string(o.ring_bytes) + " bytes for " +
                                    std::to_string(slots) + " batches of up to " +
                                    std::to_string(needed) + " bytes",
                                "LoaderOptions::ring_bytes",
                                "Use at least " + std::to_string(std::max(slot, page) * slots) +
                                    ", or a smaller batch_size, max_len, "
                                    "pad_to_multiple_of or prefetch");
        slot = given;
    }
    return slot == 0 ? RingMemory() : RingMemory(slots, slot);
}

}  // namespace eyas::detail
