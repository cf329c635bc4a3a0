// Trains a tiny EAGLE3 draft on features made up in memory and prints the falling loss.
#include <cstdio>
#include <eyas/eyas.hpp>
using namespace eyas;

int main() {
    constexpr std::size_t T = 24, V = 32;  // tokens a sample; vocabulary, and hidden size
    const auto config = parse_model_config(Json{{"hidden_size", V},
                                                {"intermediate_size", 64},
                                                {"num_attention_heads", 4},
                                                {"vocab_size", V}},
                                           "hello");
    auto head =
        Tensor::zeros(DType::F32, {V, V});  // the target speaks the token its state points at
    for (std::size_t v = 0; v < V; ++v) head.as<float>()[v * V + v] = 1.f;

    Store<Memory> store({});
    Manifest manifest;
    for (std::size_t n = 0; n < 32; ++n) {  // what capture writes: token ids and hidden states
        auto ids = Tensor::zeros(DType::I64, {T}), mask = Tensor::zeros(DType::I64, {T});
        auto aux = Tensor::zeros(DType::F32, {1, T, 3 * V}),
             last = Tensor::zeros(DType::F32, {1, T, V});
        for (std::size_t t = 0; t < T; ++t) {
            const auto token = (5 * n + 3 * t) % V, next = (token + 3) % V;
            ids.as<std::int64_t>()[t] = static_cast<std::int64_t>(token),
            mask.as<std::int64_t>()[t] = 1;
            aux.as<float>()[t * 3 * V + token] = 1.f, last.as<float>()[t * V + next] = 9.f;
        }
        const NamedTensor features[] = {{"input_ids", ids},
                                        {"loss_mask", mask},
                                        {"aux_hidden_state", aux},
                                        {"hidden_state", last}};
        manifest.refs.push_back(store.put(
            {.sample_id = "hello:" + std::to_string(n), .run_id = "hello", .num_tokens = T},
            features));
    }

    Eagle3<Cpu, F32> draft(config, {.ttt_length = 3}, identity_vocab_map(V), {head, head}, 0);
    PipelineOptions options;
    options.trainer.schedule.base_rate = 1e-2;
    options.trainer.epochs = 3;
    Pipeline(store, manifest, draft, options).run({.on_log = [](const LogRecord& r) {
        std::printf("step %2ld  loss %.3f  accuracy of the first step %.2f\n", r.step, r.loss,
                    r.accuracy[0]);
    }});
}
