#pragma once
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include "eyas/format/safetensors.hpp"
#include "eyas/format/torch_file.hpp"
#include "eyas/ingest/validate.hpp"
#include "eyas/store/directory_objects.hpp"
#include "eyas/store/packed_shard.hpp"
#include "eyas/store/remote_read.hpp"

namespace eyas::cli {

/// What a directory's files hold, all of it together.
struct FoundSamples {
    std::int64_t samples = 0, tokens = 0, supervised = 0;

    void add(std::span<const NamedTensor> tensors, const std::string& where) {
        tokens += validate_sample(tensors, {}, where).rows;
        for (const auto& t : tensors)
            if (t.name == feature::loss_mask)
                for (const auto m : t.tensor.as<std::int64_t>()) supervised += m;
        ++samples;
    }
};

/// Throws DataError where a tensor is not what the file's own checksums say; a file without any is
/// not judged.
inline void require_checksums(const SafetensorsFile& f) {
    const std::string_view prefix = eyas::detail::DirectoryObjects::checksum_prefix;
    for (const auto& [key, sum] : f.metadata()) {
        if (!key.starts_with(prefix)) continue;
        const auto name = key.substr(prefix.size());
        if (hex64(xxh3(f.at(name).bytes())) != sum)
            throw DataError("checksum of '" + name + "' differs", f.path().string(),
                            "Ingest the sample again; check the disk");
    }
}

/// Every sample with its checksums, and whether the JSON header says what the index says.
inline eyas::detail::PackedShard look_into_shard(const std::filesystem::path& f,
                                                 FoundSamples& found) {
    eyas::detail::PackedShard packed(f);
    const SafetensorsFile file(f);
    for (std::size_t i = 0; i < packed.index().size(); ++i) {
        const auto id = std::string(packed.index().id(i));
        auto object = packed.open(i, true);
        eyas::detail::bring_here(packed, object);  // what lies in float8, too
        for (const auto& t : object.tensors)
            if (const auto sum = object.checksums.find(t.name);
                sum != object.checksums.end() && xxh3(t.tensor.bytes()) != sum->second)
                throw DataError("checksum of '" + id + "/" + t.name + "' differs", f.string(),
                                "Pack the samples again; check the disk");
        for (const auto& feature : packed.index().at(i).features)
            if (static_cast<std::uint64_t>(file.at(id + "/" + feature.name).data -
                                           file.at(packed.index_name).data) != feature.data.offset)
                throw DataError("header and index differ on '" + id + "'", f.string(),
                                "Pack the samples again");
        found.add(object.tensors, f.string() + ": " + id);
    }
    return packed;
}

/// A feature file, an object's file or a shard.
inline void look_into(const std::filesystem::path& f, FoundSamples& found) {
    if (eyas::detail::PackedShard::is_file_name(f.filename().string()))
        look_into_shard(f, found);
    else if (f.extension() == ".safetensors") {
        const SafetensorsFile file(f);
        require_checksums(file);
        found.add(file.tensors(), f.string());
    } else
        found.add(TorchFile(f).tensors(), f.string());
}

}  // namespace eyas::cli
