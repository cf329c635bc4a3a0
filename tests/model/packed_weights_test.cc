// Weights in the blocks that products read: the same model, and never an old weight.
#include <cstdio>

#include "packed_batch.hpp"

using namespace eyas;
using namespace eyas::test::packed;

namespace {
/// Cpu that counts products with packed weights.
struct CountingCpu : Cpu {
    static inline int products = 0;
    template <class T>
    void matmul(const Matmul<T, float>& x) const {
        Cpu::matmul(x);
    }
    template <class T>
    void matmul(const PackedMatmul<T>& x) const {
        ++products;
        Cpu::matmul(x);
    }
};
static_assert(PackingDevice<CountingCpu>);

/// Says so where this processor packs nothing.
bool packs() {
    if (Cpu().packs(W, D)) return true;
    std::puts("SKIPPED: oneDNN has no kernel for packed weights on this processor");
    return false;
}
}  // namespace

TEMPLATE_TEST_CASE("every forward product of a step reads packed weights", "", F32, Bf16) {
    if (!packs()) return;
    const Documents documents;
    const Owned batch(documents.packed, 80, true);
    for (const bool packed : {true, false}) {
        Draft<TestType, CountingCpu> draft(LossType::CrossEntropy, 3, Activations::Keep, packed);
        CountingCpu::products = 0;
        run(draft, {{&batch.batch}});
        // fc; qkv, o, gate_up, down and the head at each TTT step; in fp32 the teacher's two tiles.
        const int products = 1 + 3 * 5 + (std::same_as<TestType, F32> ? 2 : 0);
        CHECK(CountingCpu::products == (packed ? products : 0));
    }
}

TEMPLATE_TEST_CASE("packed weights change nothing but rounding", "", F32, Bf16) {
    const Documents documents;
    const Owned batch(documents.packed, 80, true);
    for (const auto activations : {Activations::Keep, Activations::Recompute}) {
        Draft<TestType> packed(LossType::CrossEntropy, 4, activations),
            plain(LossType::CrossEntropy, 4, activations, false);
        Draft<F32> exact(LossType::CrossEntropy, 4, activations, false);
        const auto one = run(packed, {{&batch.batch}}), other = run(plain, {{&batch.batch}});
        const auto in_full = run(exact, {{&batch.batch}});
        require_near(one, other, std::same_as<TestType, F32> ? nullptr : &in_full);
    }
}

TEST_CASE("a step uses the weights as they are when it begins") {
    const Documents documents;
    const Owned batch(documents.packed, 80, true);
    Draft<F32> draft(LossType::CrossEntropy, 3, Activations::Keep),
        fresh(LossType::CrossEntropy, 3, Activations::Keep);
    const auto of_first_weights = run(draft, {{&batch.batch}});
    for (auto* d : {&draft, &fresh})
        for (const auto& p : d->model->parameters())
            for (float& v : p.value.template as<float>()) v *= 1.25f;
    const auto after = run(draft, {{&batch.batch}}), wanted = run(fresh, {{&batch.batch}});
    CHECK(after.metrics[0].loss == wanted.metrics[0].loss);
    CHECK(after.gradients == wanted.gradients);
    CHECK(after.metrics[0].loss != of_first_weights.metrics[0].loss);
}

TEST_CASE("packed weights are in the plan where they are kept, and only there") {
    if (!packs()) return;
    const auto config = Draft<F32>(LossType::CrossEntropy, 1, Activations::Keep).model->config();
    const auto bytes = [&](bool packed) {
        std::uint64_t n = 0;
        for (const auto& p : Eagle3<Cpu, F32>::memory_plan(config, {.packed_weights = packed}, 100))
            if (p.name == "draft: packed weights") n += p.bytes;
        return n;
    };
    const auto norms = 4 * D;
    CHECK(bytes(true) ==
          static_cast<std::uint64_t>(Eagle3<Cpu, F32>::parameter_count(config) - norms) * 4);
    CHECK(bytes(false) == 0);
}
