#pragma once
#include <catch2/catch.hpp>

#include "eyas/ingest/pack.hpp"
#include "eyas/store/memory.hpp"
#include "eyas/store/store.hpp"
#include "tests/loader/fake_store.hpp"

namespace eyas::test {

/// Synthetic samples s0, s1, … in a memory store: what is packed in tests. Sample i has 5 + i rows.
struct PackSource {
    Store<Memory> store{{}};
    Manifest manifest = {};
    std::vector<FakeSample> samples = {};

    explicit PackSource(int count, std::int64_t width = 4, DType dtype = DType::BF16) {
        samples.reserve(static_cast<std::size_t>(count));
        for (int i = 0; i < count; ++i) {
            samples.emplace_back(5 + i, width, i + 1, dtype);
            put(i);
        }
    }
    /// Puts sample i again, as it is now.
    void put(int i) {
        SampleRef ref{.sample_id = "s" + std::to_string(i), .run_id = "pack"};
        const auto& s = samples[static_cast<std::size_t>(i)];
        ref = store.put(std::move(ref), std::span<const NamedTensor>(s.tensors));
        const auto at = static_cast<std::size_t>(i);
        if (at < manifest.refs.size())
            manifest.refs[at] = ref;
        else
            manifest.refs.push_back(ref);
    }
};

/// Both ways of reading give the first rows of the sample, every bit.
template <class S>
void require_packed(S& store, const SampleRef& ref, const FakeSample& want) {
    const auto lease = store.acquire(ref);
    const auto views = store.view(lease);
    for (const auto& t : want.tensors) {
        const auto& spec = ref.spec(t.name);
        Tensor copy(spec.dtype, spec.shape);
        const NamedBuffer buffers[] = {{t.name, copy.mutable_view()}};
        store.read_into(lease, buffers);
        const auto bytes = t.tensor.bytes().first(spec.size_bytes());
        REQUIRE(std::ranges::equal(copy.view().bytes(), bytes));
        const auto it = std::ranges::find(views, t.name, &NamedTensor::name);
        REQUIRE(it != views.end());
        REQUIRE(it->tensor.shape == spec.shape);
        REQUIRE(std::ranges::equal(it->tensor.bytes(), bytes));
    }
}

}  // namespace eyas::test
