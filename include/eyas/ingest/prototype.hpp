#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#include "eyas/core/error.hpp"
#include "eyas/ingest/checked_sample.hpp"
#include "eyas/ingest/scan.hpp"
#include "eyas/sample/manifest.hpp"
#include "eyas/store/concept.hpp"

namespace eyas::detail {

/// What a put says of a sample, with the reference's metadata (SpecForge runtime/data_plane).
inline SampleRef ref_prototype(const IngestOptions& o, std::size_t index, std::int64_t rows) {
    SampleRef ref;
    ref.sample_id = sample_id(o.run_id, index);
    ref.run_id = o.run_id;
    ref.strategy = o.strategy;
    ref.num_tokens = rows;
    ref.metadata["run_id"] = o.run_id;
    ref.metadata["strategy"] = o.strategy;
    ref.metadata["format"] = "offline_" + o.strategy;
    ref.metadata["target_repr"] = "hidden_state";
    ref.metadata["ttt_length"] = o.ttt_length;
    ref.metadata["max_len"] = o.max_len;
    ref.metadata["file_index"] = index;
    tell_convention(ref, o.convention);
    return ref;
}

template <class Sink>
SampleRef put_or_adopt(Sink& store, SampleRef ref, const CheckedSample& s, bool link) {
    const std::span<const NamedTensor> tensors(s.tensors);
    if (!link) return store.put(std::move(ref), tensors, {.known = &s.checksums});
    const AdoptedFile file{s.file.path(), s.file.descriptor()};
    if constexpr (requires { store.adopt(ref, tensors, file); })
        return store.adopt(std::move(ref), tensors, file);
    else
        throw ContractError("this store cannot take files without a copy", "ingest",
                            "Use disagg:DIR on the files' own file system, or leave --link out");
}

}  // namespace eyas::detail
