// Weights in the blocks that products read: the same model, and never an old weight.
#include <cstring>

#include "packed_batch.hpp"

using namespace eyas;
using namespace eyas::test::packed;

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
    const auto config = Draft<F32>(LossType::CrossEntropy, 1, Activations::Keep).model->config();
    const auto bytes = [&](bool packed) {
        std::uint64_t n = 0;
        for (const auto& p : Eagle3<Cpu, F32>::memory_plan(config, {.packed_weights = packed}, 100))
            if (p.name == "draft: packed weights") n += p.bytes;
        return n;
    };
    // All but the norms and the head, whose W is no multiple of 16.
    const auto packed = Eagle3<Cpu, F32>::parameter_count(config) - 4 * D - W * D;
    CHECK(bytes(true) == static_cast<std::uint64_t>(packed) * 4);
    CHECK(bytes(false) == 0);
}
