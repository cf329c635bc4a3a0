#pragma once
#include <string>
#include <vector>

#include "eyas/loader/loader.hpp"
#include "tests/loader/fake_store.hpp"

namespace eyas::test {

// Samples "s:0", "s:1", ... of 5, 6, 7, 5, 6, ... rows.
inline Manifest fill(FakeStore& store, int samples, std::int64_t width = 4) {
    Manifest m;
    for (int i = 0; i < samples; ++i) {
        const FakeSample s(5 + i % 3, width, i + 1);
        m.refs.push_back(
            store.put({.sample_id = "s:" + std::to_string(i), .run_id = "s"}, s.tensors));
    }
    return m;
}

inline std::vector<std::vector<std::string>> ids_of_run(Loader<FakeStore>& loader) {
    std::vector<std::vector<std::string>> out;
    while (const auto* b = loader.next()) out.push_back(b->sample_ids);
    return out;
}

inline LoaderOptions options(std::int64_t batch, std::int64_t prefetch = 2,
                             std::int64_t epochs = 1) {
    LoaderOptions o;
    o.batch_size = batch;
    o.prefetch = prefetch;
    o.epochs = epochs;
    return o;
}

}  // namespace eyas::test
