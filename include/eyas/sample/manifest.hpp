#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

#include "eyas/sample/manifest_stream.hpp"
#include "eyas/sample/sample_ref.hpp"

namespace eyas {

/// The whole control plane of an offline run: which samples there are and where. JSON schema:
/// SpecForge's ref manifest (runtime/data_plane/disagg_ingest.py), readable by both sides.
struct Manifest {
    std::int64_t schema_version = SampleRef::supported_schema_version;
    std::vector<SampleRef> refs = {};  // in file order; the loader shuffles

    friend bool operator==(const Manifest&, const Manifest&) = default;
};
static_assert(MetadataOnly<Manifest>);

namespace detail {
inline Manifest manifest_of_stream(std::string_view text, const std::string& where) {
    ManifestStreamParser parser(where);
    Manifest m;
    std::size_t at = 0;
    for (std::size_t newline; (newline = text.find('\n', at)) != text.npos; at = newline + 1)
        if (auto ref = parser.take(text.substr(at, newline - at)))
            m.refs.push_back(std::move(*ref));
    if (parser.failure())
        throw DataError("the producer failed: " + *parser.failure(), where,
                        "Repair and start the producer again; it goes on with the stream");
    if (!parser.finished())
        throw DataError(
            "the stream has no end yet, " + std::to_string(parser.refs()) + " refs are there",
            where, "Wait for its producer, or follow it (eyas train --follow)");
    if (at != text.size())
        throw DataError("something follows the stream's end", where, "Write the stream again");
    return m;
}
}  // namespace detail

/// Reads and checks a manifest: manifest.json, or a manifest stream that has its end marker. Throws
/// DataError, naming file, ref and field, for bad JSON, another schema version, missing or unknown
/// keys, payloads in metadata, ids that occur twice, and a stream that is not finished.
inline Manifest read_manifest(const std::filesystem::path& path) {
    const auto where = path.string();
    const auto text = read_text_file(path);
    if (detail::is_manifest_stream(text)) return detail::manifest_of_stream(text, where);
    const auto j = parse_json<OrderedJson>(text, where);
    if (!j.is_object() || !j.contains("schema_version") || !j.contains("refs"))
        throw DataError("not a manifest: it has no schema_version and refs", where,
                        "Name the manifest.json that ingest wrote");
    Manifest m;
    m.schema_version = detail::json_integer(j.at("schema_version"), where + ": schema_version", 0);
    if (m.schema_version != SampleRef::supported_schema_version)
        throw DataError("schema version " + std::to_string(m.schema_version) +
                            ", this library reads version " +
                            std::to_string(SampleRef::supported_schema_version),
                        where + ": schema_version", "Ingest the features again");
    const auto& refs = j.at("refs");
    if (!refs.is_array()) throw DataError("refs is not a list", where, "Write the manifest again");
    std::unordered_set<std::string> seen;
    m.refs.reserve(refs.size());
    for (std::size_t i = 0; i < refs.size(); ++i) {
        const auto at = where + ": refs[" + std::to_string(i) + "]";
        m.refs.push_back(ref_from_json(refs[i], at));
        if (!seen.insert(m.refs.back().sample_id).second)
            throw DataError("sample_id '" + m.refs.back().sample_id + "' occurs twice", at,
                            "Give every sample its own id");
    }
    return m;
}

/// Writes a manifest atomically, one ref a line, and creates its directory. Throws ContractError
/// when metadata carries a payload or text is not UTF-8 (nothing is written then), ResourceError
/// when the file cannot be written.
inline void write_manifest(const std::filesystem::path& path, const Manifest& manifest) {
    std::string text =
        "{\"schema_version\": " + std::to_string(manifest.schema_version) + ", \"refs\": [";
    const char* separator = "\n";
    for (const auto& ref : manifest.refs) {
        try {
            check_metadata(ref.metadata, "sample " + ref.sample_id + ": metadata");
            for (const auto& s : ref.feature_specs)
                check_metadata(s.target_meta,
                               "sample " + ref.sample_id + ": " + s.name + ".target_meta");
            text += separator + ref_to_json(ref).dump(-1, ' ', true);
        } catch (const std::exception& e) {
            throw ContractError(e.what(), path.string(), "The manifest was not written");
        }
        separator = ",\n";
    }
    text += "\n]}\n";
    if (path.has_parent_path()) eyas::create_directories(path.parent_path());
    write_text_file(path, text);
}

}  // namespace eyas
