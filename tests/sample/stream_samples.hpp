#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "eyas/sample/stream_reader.hpp"
#include "eyas/sample/stream_writer.hpp"
#include "tests/store/scratch.hpp"

namespace eyas::test {

inline SampleRef stream_ref(int i) {
    SampleRef r{.sample_id = "run:" + std::to_string(i), .run_id = "run"};
    r.feature_store_uri = "disagg://s/" + r.sample_id;
    r.feature_keys = {{"input_ids", r.sample_id + "/input_ids"}};
    r.feature_specs = {{.name = "input_ids", .shape = Shape{5 + i}, .dtype = DType::I64}};
    r.num_tokens = 5 + i;
    r.metadata = {{"run_id", "run"}, {"generation", 1}};
    return r;
}

inline std::vector<std::string> ids_of(const std::vector<SampleRef>& refs) {
    std::vector<std::string> ids;
    for (const auto& r : refs) ids.push_back(r.sample_id);
    return ids;
}

inline std::vector<std::string> ids_up_to(int n) {
    std::vector<std::string> ids;
    for (int i = 0; i < n; ++i) ids.push_back(stream_ref(i).sample_id);
    return ids;
}

/// A stream of n refs, with its end marker or without.
inline void write_stream(const std::filesystem::path& path, int n, bool end = true) {
    ManifestStreamWriter writer(path, {.durable = false, .producer = "a test"});
    for (int i = 0; i < n; ++i) writer.append(stream_ref(i));
    if (end) writer.finish();
}

}  // namespace eyas::test
