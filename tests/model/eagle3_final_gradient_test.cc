// Which gradients the model calls final, when, and that it is right.
#include <catch2/catch.hpp>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "tests/pipeline/tiny_draft.hpp"

using namespace eyas;
using test::D;
using test::random_tensor;
using test::V;
using test::W;

namespace {
template <class P>
struct Job {
    Job(ModelConfig config, const Eagle3Options& options)
        : head(random_tensor(DType::F32, Shape{V, D}, random)),
          model(std::move(config), options, map(), FrozenTarget{head, head}, 1) {
        for (auto* t : {&ids, &ones, &mask}) *t = Tensor(DType::I64, Shape{2, tokens});
        for (auto& x : ids.as<std::int64_t>()) x = static_cast<std::int64_t>(random() % V);
        for (auto& x : ones.as<std::int64_t>()) x = 1;
        for (auto& x : mask.as<std::int64_t>()) x = random() % 4 != 0;
        states = random_tensor(DType::F32, Shape{2, tokens, 3 * D}, random);
        target = random_tensor(DType::F32, Shape{2, tokens, D}, random);
    }
    static VocabMap map() {
        VocabMap m;
        for (std::int64_t v = 0; v < V; ++v) m.t2d.push_back(v % 2 == 0);
        for (std::int64_t d = 0; d < W; ++d) m.d2t.push_back(d);
        return m;
    }
    Batch batch() const { return {ids, ones, mask, states, target, {}, {"a", "b"}}; }
    std::vector<float> gradient(std::size_t parameter) {
        const auto g = model.parameters()[parameter].grad.template as<float>();
        return {g.begin(), g.end()};
    }

    static constexpr std::int64_t tokens = 9;
    std::mt19937 random{3};
    Tensor head, ids, ones, mask, states, target;
    Eagle3<Cpu, P> model;
};
}  // namespace

TEMPLATE_TEST_CASE("each gradient is told once, when nothing is added to it any more", "", F32,
                   Bf16) {
    static_assert(TellsFinalGradients<Eagle3<Cpu, TestType>>);
    for (const auto loss : {LossType::CrossEntropy, LossType::LkLambda})
        for (const auto activations : {Activations::Keep, Activations::Recompute})
            for (const bool norms : {false, true}) {
                auto config = test::tiny_config();
                config.fc_norm = norms;
                config.norm_output = !norms;
                Eagle3Options options{.ttt_length = 3, .activations = activations};
                options.loss = loss;
                Job<TestType> job(config, options), silent(config, options);
                auto& model = job.model;
                // Of two batches that add up, only the last tells.
                (void)model.forward_backward(job.batch(), 0.5f);
                (void)silent.model.forward_backward(job.batch(), 0.5f);
                std::map<std::size_t, std::vector<float>> told;
                std::string order;
                (void)model.forward_backward(job.batch(), 0.5f, [&](std::size_t p) {
                    CHECK(told.emplace(p, job.gradient(p)).second);
                    order += model.parameters()[p].name + " ";
                });
                (void)silent.model.forward_backward(job.batch(), 0.5f);
                REQUIRE(told.size() == model.parameters().size());
                for (const auto& [p, gradient] : told) {
                    CHECK(gradient == job.gradient(p));
                    CHECK(gradient == silent.gradient(p));  // telling changes no bit
                }
                std::string expected =
                    "lm_head.weight norm.weight midlayer.mlp.down_proj.weight "
                    "midlayer.mlp.gate_proj.weight midlayer.mlp.up_proj.weight "
                    "midlayer.post_attention_layernorm.weight midlayer.self_attn.o_proj.weight "
                    "midlayer.self_attn.q_proj.weight midlayer.self_attn.k_proj.weight "
                    "midlayer.self_attn.v_proj.weight midlayer.input_layernorm.weight "
                    "midlayer.hidden_norm.weight fc.weight ";
                if (norms) expected += "fc_norm.0.weight fc_norm.1.weight fc_norm.2.weight ";
                CHECK(order == expected);
            }
}
