// rollout [--model DIR] [--precision float32] [--prompts 16] [--prompt-tokens 64] [--new-tokens 64]
// [--runs 3]: tokens/s of generation for 1, 4 and 16 sequences at once and of capture over the same
// texts, and the time of judging drafts (a forward of some rows of one sequence), beside what the
// machine could: a step reads every weight once (bytes over read bandwidth) or multiplies every row
// by it (products alone at the rate of one large product in that precision), whichever takes
// longer. Without --model a random one of the shape of SmolLM2-135M. Before a time is printed,
// answers and states of all batches are compared bit by bit.
#include "eyas/capture/rollout.hpp"

#include <omp.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <numeric>
#include <random>

#include "bench/timing.hpp"
#include "eyas/device/cpu.hpp"
#include "eyas/format/safetensors_writer.hpp"

namespace {
using namespace eyas;
namespace fs = std::filesystem;

/// A Llama of the shape of SmolLM2-135M with small random weights, in a directory that goes.
class RandomModel {
public:
    RandomModel() {
        dir_ = fs::temp_directory_path() / ("eyas-bench-" + std::to_string(::getpid()));
        eyas::create_directories(dir_);
        const Json config{{"model_type", "llama"},
                          {"hidden_size", D},
                          {"intermediate_size", F},
                          {"num_hidden_layers", L},
                          {"num_attention_heads", 9},
                          {"num_key_value_heads", 3},
                          {"vocab_size", V},
                          {"max_position_embeddings", 8192},
                          {"rope_theta", 100000.0},
                          {"rms_norm_eps", 1e-5},
                          {"tie_word_embeddings", true},
                          {"hidden_act", "silu"}};
        write_text_file(dir_ / "config.json", config.dump());
        add("model.embed_tokens.weight", {V, D});
        add("model.norm.weight", {D});
        for (std::int64_t l = 0; l < L; ++l) {
            const auto name = [l](const char* part) {
                return "model.layers." + std::to_string(l) + "." + part + ".weight";
            };
            for (const char* norm : {"input_layernorm", "post_attention_layernorm"})
                add(name(norm), {D});
            add(name("self_attn.q_proj"), {D, D}), add(name("self_attn.o_proj"), {D, D});
            add(name("self_attn.k_proj"), {D / 3, D}), add(name("self_attn.v_proj"), {D / 3, D});
            add(name("mlp.gate_proj"), {F, D}), add(name("mlp.up_proj"), {F, D});
            add(name("mlp.down_proj"), {D, F});
        }
        std::vector<NamedTensor> tensors;
        for (const auto& [name, t] : weights_) tensors.push_back({name, t.view()});
        write_safetensors(dir_ / "model.safetensors", tensors, {}, {.durable = false});
        weights_.clear();
    }
    RandomModel(const RandomModel&) = delete;
    RandomModel& operator=(const RandomModel&) = delete;
    ~RandomModel() {
        std::error_code ignored;
        fs::remove_all(dir_, ignored);
    }
    const fs::path& path() const { return dir_; }

private:
    static constexpr std::int64_t D = 576, F = 1536, L = 30, V = 49152;

    void add(const std::string& name, const Shape& shape) {
        Tensor t(DType::BF16, shape);
        const bool norm = shape.rank() == 1;
        std::uniform_real_distribution<float> uniform(-0.1f, 0.1f);
        for (auto& x : t.as<BFloat16>()) x = BFloat16(norm ? 1.f : uniform(random_));
        weights_.emplace_back(name, std::move(t));
    }

    fs::path dir_;
    std::mt19937 random_{1};
    std::vector<std::pair<std::string, Tensor>> weights_;
};

/// Numbers of all matrices that a row is multiplied by; the head's apart.
std::int64_t layer_numbers(const ModelConfig& c) {
    const auto q = c.num_attention_heads * c.head_dim, kv = c.num_key_value_heads * c.head_dim;
    return c.num_hidden_layers *
           (c.hidden_size * (2 * q + 2 * kv) + 3 * c.hidden_size * c.intermediate_size);
}

template <PrecisionPolicy P>
class Bench {
public:
    Bench(const fs::path& dir, const bench::Arguments& a)
        : weights_(dir),
          model_(weights_),
          new_tokens_(a.number("new-tokens")),
          runs_(static_cast<std::size_t>(a.number("runs"))) {
        const auto n = a.number("prompt-tokens");
        for (std::int64_t i = 0; i < a.number("prompts"); ++i) {
            RolloutRequest r{i, {}};
            // The same tokens as bench/peer/transformers_generate.py.
            for (std::int64_t j = 0; j < n; ++j)
                r.prompt.push_back((1 + 7919 * i + 104729 * j) % model_.config().vocab_size);
            requests_.push_back(std::move(r));
        }
    }

    void run() {
        verify();
        ceilings();
        for (const std::int64_t batch : {1, 4, 16}) generation(batch);
        judging();
        capture();
    }

private:
    std::vector<GeneratedSequence> answers(std::int64_t batch, bool keep_states) {
        std::vector<GeneratedSequence> all(requests_.size());
        Rollout<Cpu, P>(model_,
                        {.max_new_tokens = new_tokens_, .slots = batch, .capture = keep_states})
            .run(requests_, [&](GeneratedSequence&& s) {
                all[static_cast<std::size_t>(s.index)] = std::move(s);
            });
        return all;
    }

    /// Throws unless every batch gives the same bits, and those of forwards over whole texts.
    void verify() {
        if (!model_.row_invariant()) throw std::runtime_error("no packed products here");
        if (std::same_as<P, Bf16> && !cpu_.narrows(16, 16))
            throw std::runtime_error("no products of narrow weights here");
        const auto want = answers(16, true);
        for (const std::int64_t batch : {1, 4}) {
            const auto got = answers(batch, true);
            for (std::size_t i = 0; i < want.size(); ++i)
                if (got[i].input_ids != want[i].input_ids ||
                    got[i].states.captured != want[i].states.captured ||
                    got[i].states.last != want[i].states.last)
                    throw std::runtime_error("batches of 16 and of " + std::to_string(batch) +
                                             " differ in answer " + std::to_string(i));
        }
        for (const auto& s : want) {
            texts_.insert(texts_.end(), s.input_ids.begin(), s.input_ids.end());
            lengths_.push_back(s.tokens());
        }
        const auto whole = model_.forward(texts_, lengths_);
        std::size_t at = 0;
        for (const auto& s : want)
            for (auto x : s.states.last)
                if (x != BFloat16(whole.last.template as<float>()[at++]))
                    throw std::runtime_error("states differ from one forward over the text");
        std::printf(
            "%zu prompts of %zu tokens, %lld new ones each, %d threads, %s; answers and states "
            "of batches 1, 4 and 16 and of whole texts are the same bits\n",
            requests_.size(), requests_[0].prompt.size(), static_cast<long long>(new_tokens_),
            omp_get_max_threads(), P::name.data());
    }

    void ceilings() {
        constexpr std::int64_t rows = 16384, row = 4096, n = rows * row;  // beyond any cache
        const std::vector<float> numbers(static_cast<std::size_t>(n), 1.f);
        std::vector<float> sums(static_cast<std::size_t>(rows));
        const auto read = bench::times_of(
            [&] {
                cpu_.for_each_row(rows, [&](std::int64_t r) {
                    const float* x = numbers.data() + r * row;
                    float sum = 0;
#pragma omp simd reduction(+ : sum)
                    for (std::int64_t i = 0; i < row; ++i) sum += x[i];
                    sums[static_cast<std::size_t>(r)] = sum;
                });
            },
            runs_);
        if (std::accumulate(sums.begin(), sums.end(), 0.0) != static_cast<double>(n))
            throw std::runtime_error("the sum is wrong");
        read_ = 4.0 * static_cast<double>(n) / read.median;
        const std::int64_t m = 1024, k = 1536, w = 1536;
        const std::vector<float> x(m * k, 1.f), y(w * k, 1.f);
        std::vector<float> packed(y.size()), z(m * w);
        std::vector<BFloat16> narrow(y.size());
        if constexpr (std::same_as<P, F32>)
            cpu_.pack(y.data(), w, k, packed.data());
        else
            cpu_.narrow(y.data(), w, k, narrow.data());
        const auto multiply = [&] {
            if constexpr (std::same_as<P, F32>)
                cpu_.matmul(PackedMatmul<float>{m, w, k, x.data(), packed.data(), z.data()});
            else
                cpu_.matmul(NarrowMatmul<Bf16>{m, w, k, x.data(), narrow.data(), z.data()});
        };
        rate_ = 2.0 * static_cast<double>(m * k * w) / bench::times_of(multiply, runs_).median;
        std::printf("ceilings: %.1f GB/s read, %.1f GFLOP/s\n", read_ / 1e9, rate_ / 1e9);
    }

    /// Seconds that a forward of `rows` rows takes at least, `heads` of them through the head.
    double least(double rows, double heads) const {
        const auto& c = model_.config();
        const auto layers = static_cast<double>(layer_numbers(c));
        const auto head = static_cast<double>(c.vocab_size * c.hidden_size);
        const double bytes = 2;  // of a weight, bfloat16
        return std::max(bytes * layers / read_, 2 * rows * layers / rate_) +
               (heads > 0 ? std::max(bytes * head / read_, 2 * heads * head / rate_) : 0);
    }

    void generation(std::int64_t batch) {
        RolloutReport r;
        const auto t = bench::times_of(
            [&] {
                r = Rollout<Cpu, P>(model_, {.max_new_tokens = new_tokens_, .slots = batch})
                        .run(requests_, {});
            },
            runs_);
        const auto tokens = static_cast<double>(r.generated_tokens);
        const auto steps = static_cast<double>(r.steps);
        const auto rows = (tokens + static_cast<double>(r.prompt_tokens)) / steps;
        report("generation, batch " + std::to_string(batch), tokens, t,
               steps * least(rows, tokens / steps));
    }

    /// What a draft of n - 1 tokens costs the target: a forward and logits of n rows of a sequence.
    void judging() {
        auto cache = model_.make_cache(std::ssize(texts_));
        KvCache::Sequence text;
        const NewRows first{&text, lengths_[0]};
        const auto ids = std::span(texts_).first(static_cast<std::size_t>(lengths_[0]));
        model_.forward(ids, std::span(&first, 1), cache);
        for (const std::int64_t n : {1, 2, 4, 6, 8, 16}) {
            std::vector<std::int64_t> parents(static_cast<std::size_t>(n));
            std::iota(parents.begin(), parents.end(), std::int64_t{-1});
            const NewRows rows{&text, n, parents};
            const auto t = bench::times_of(
                [&] {
                    const auto states = model_.forward(ids.first(static_cast<std::size_t>(n)),
                                                       std::span(&rows, 1), cache);
                    model_.logits(states.last.view());
                },
                5 * runs_);
            const auto c = least(static_cast<double>(n), static_cast<double>(n));
            std::printf(
                "%2lld rows of one sequence     %8.2f ms (%.2f to %.2f)   %3.0f %% of the "
                "ceiling of %.2f\n",
                static_cast<long long>(n), 1e3 * t.median, 1e3 * t.min, 1e3 * t.max,
                100 * c / t.median, 1e3 * c);
        }
    }

    void capture() {
        TargetModel<Cpu, P> model(weights_, {{}, false});  // as eyas capture
        const auto t = bench::times_of([&] { model.forward(texts_, lengths_); }, runs_);
        const auto rows = static_cast<double>(texts_.size());
        report("capture of whole texts", rows, t, least(rows, 0));
    }

    static void report(const std::string& what, double tokens, const bench::Times& t,
                       double ceiling) {
        std::printf("%-24s %8.1f tokens/s (%.1f to %.1f)   %3.0f %% of the ceiling of %.1f\n",
                    what.c_str(), tokens / t.median, tokens / t.max, tokens / t.min,
                    100 * ceiling / t.median, tokens / ceiling);
    }

    HfWeights weights_;
    TargetModel<Cpu, P> model_;  // in the form that eyas rollout decodes with
    Cpu cpu_;
    std::int64_t new_tokens_;
    std::size_t runs_;
    std::vector<RolloutRequest> requests_;
    std::vector<std::int64_t> texts_, lengths_;
    double read_ = 0, rate_ = 0;  // bytes/s, FLOP/s
};
}  // namespace

int main(int argc, char** argv) {
    try {
        const eyas::bench::Arguments a(argc, argv,
                                       {{"model", ""},
                                        {"precision", "float32"},
                                        {"prompts", "16"},
                                        {"prompt-tokens", "64"},
                                        {"new-tokens", "64"},
                                        {"runs", "3"}});
        const auto run = [&](const fs::path& model) {
            const auto precision = a.text("precision");
            if (precision == F32::name) return Bench<F32>(model, a).run();
            if (precision == Bf16::name) return Bench<Bf16>(model, a).run();
            throw std::runtime_error("--precision is float32 or bfloat16, not " + precision);
        };
        if (a.text("model").empty())
            run(RandomModel().path());
        else
            run(a.text("model"));
    } catch (const std::exception& e) {
        std::fprintf(stderr, "rollout: %s\n", e.what());
        return 1;
    }
}
