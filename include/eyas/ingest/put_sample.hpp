#pragma once
#include <cstddef>
#include <map>
#include <span>
#include <string>
#include <utility>

#include "eyas/core/running_sums.hpp"
#include "eyas/ingest/checked_sample.hpp"
#include "eyas/ingest/prototype.hpp"

namespace eyas {

/// In the metadata of a ref whose sample was put from memory: XXH3-64 of its input_ids' bytes, 16
/// digits. It says whose features they are without reading them.
inline constexpr const char* token_hash_key = "input_ids_xxh3";

/// Puts a sample whose tensors lie in memory into a store, as ingest() puts a file's: the same
/// checks, checksums and metadata, and token_hash_key besides. `tensors` in the order of
/// feature::all. Throws DataError for what is no valid sample (nothing is put then), else what the
/// store does.
template <class Sink>
SampleRef put_sample(Sink& store, const IngestOptions& options, std::size_t index,
                     std::span<const NamedTensor> tensors) {
    std::map<std::string, RunningSums> sums;
    for (const auto& t : tensors) sums.emplace(t.name, RunningSums(true));
    const auto layout = validate_sample(
        tensors, {options.vocab_size, options.max_len, true},
        "sample '" + detail::sample_id(options.run_id, index) + "'",
        [&](const NamedTensor& t, auto bytes) { sums.find(t.name)->second(bytes); });
    Checksums checksums;
    for (const auto& [name, s] : sums) checksums[name] = s.xxh3();
    auto ref = detail::ref_prototype(options, index, layout.rows);
    ref.metadata[token_hash_key] = hex64(checksums.at(std::string(feature::input_ids)));
    return store.put(std::move(ref), tensors, {.known = &checksums});
}

}  // namespace eyas
