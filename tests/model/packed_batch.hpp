#pragma once
#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "eyas/device/cpu.hpp"
#include "eyas/device/precision.hpp"
#include "eyas/device/transfer.hpp"
#include "eyas/model/eagle3.hpp"

// Batches of several samples a row, and what a small draft makes of them.
namespace eyas::test::packed {

inline constexpr std::int64_t D = 32, V = 64, W = 32;

inline Tensor random_tensor(const Shape& shape, unsigned seed) {
    Tensor t(DType::F32, shape);
    std::mt19937 random(seed);
    for (float& v : t.as<float>()) v = static_cast<float>(random() % 2001) / 1000.f - 1.f;
    return t;
}

struct Document {
    Tensor ids, loss, states, target;
    std::int64_t rows() const { return ids.shape()[0]; }
    Document(std::int64_t rows, unsigned seed)
        : ids(DType::I64, {rows}),
          loss(DType::I64, {rows}),
          states(random_tensor({rows, 3 * D}, seed)),
          target(random_tensor({rows, D}, seed + 100)) {
        std::mt19937 random(seed);
        for (auto& x : ids.as<std::int64_t>()) x = random() % V;
        for (auto& x : loss.as<std::int64_t>()) x = random() % 4 != 0;
    }
    /// No row of it is supervised.
    Document unsupervised() const {
        Document other(rows(), 0);
        other.ids = Tensor::copy_of(ids), other.states = Tensor::copy_of(states);
        other.target = Tensor::copy_of(target), other.loss = Tensor::zeros(DType::I64, {rows()});
        return other;
    }
};
using Row = std::vector<const Document*>;

/// A batch with its memory; every row is padded to `tokens`.
struct Owned {
    Tensor ids, ones, loss, states, target, document;
    Batch batch;
    Owned(const std::vector<Row>& rows, std::int64_t tokens, bool packed) {
        const auto b = static_cast<std::int64_t>(rows.size());
        for (auto* t : {&ids, &ones, &loss, &document}) *t = Tensor::zeros(DType::I64, {b, tokens});
        states = Tensor::zeros(DType::F32, {b, tokens, 3 * D});
        target = Tensor::zeros(DType::F32, {b, tokens, D});
        for (std::size_t r = 0; r < rows.size(); ++r) {
            const auto row = r * static_cast<std::size_t>(tokens);
            std::size_t at = 0;
            const auto starts = [&](std::size_t from, std::size_t count) {
                std::fill_n(document.as<std::int64_t>().begin() + static_cast<long>(row + from),
                            count, static_cast<std::int64_t>(from));
            };
            for (const auto* d : rows[r]) {
                const auto n = static_cast<std::size_t>(d->rows());
                REQUIRE(at + n <= static_cast<std::size_t>(tokens));
                const auto put = [&](Tensor& to, const Tensor& from, std::size_t width) {
                    std::memcpy(to.mutable_view().data + (row + at) * width, from.view().data,
                                n * width);
                };
                put(ids, d->ids, 8), put(loss, d->loss, 8);
                put(states, d->states, 3 * D * 4), put(target, d->target, D * 4);
                std::fill_n(ones.as<std::int64_t>().begin() + static_cast<long>(row + at), n, 1);
                starts(at, n);
                at += n;
            }
            starts(at, static_cast<std::size_t>(tokens) - at);
        }
        batch = {ids, ones, loss, states, target, {}, {"s"}};
        if (packed) batch.document = document;
    }
};

template <class P, Device Dev = Cpu>
struct Draft {
    Draft(LossType loss, std::int64_t ttt_length, Activations activations,
          bool packed_weights = true, bool replay_steps = false)
        : embed(random_tensor({V, D}, 1)), head(random_tensor({V, D}, 2)) {
        const auto config = parse_model_config({{"hidden_size", D},
                                                {"intermediate_size", 48},
                                                {"num_attention_heads", 4},
                                                {"num_key_value_heads", 2},
                                                {"vocab_size", V},
                                                {"draft_vocab_size", W}},
                                               "test");
        VocabMap map;
        for (std::int64_t v = 0; v < V; ++v) map.t2d.push_back(v % 2 == 0);
        for (std::int64_t d = 0; d < W; ++d) map.d2t.push_back(d);
        Eagle3Options options{.ttt_length = ttt_length, .activations = activations};
        options.loss = loss, options.packed_weights = packed_weights;
        options.replay_steps = replay_steps;
        model =
            std::make_unique<Eagle3<Dev, P>>(config, options, map, FrozenTarget{embed, head}, 1);
    }
    Tensor embed, head;
    std::unique_ptr<Eagle3<Dev, P>> model;
};

/// Metrics and gradients of batches, one after the other: gradients add up.
struct Result {
    std::vector<StepMetrics> metrics;
    std::vector<std::vector<float>> gradients;
    std::vector<std::string> names;
};
struct Work {
    const Batch* batch;
    float scale = 1;
};
template <class P, class Dev>
Result run(Draft<P, Dev>& draft, const std::vector<Work>& work) {
    Result r;
    draft.model->zero_gradients();
    for (const auto& w : work)
        r.metrics.push_back(draft.model->forward_backward(*w.batch, w.scale));
    for (const auto& p : draft.model->parameters()) {
        const auto on_host = eyas::on_host(draft.model->device(), p.grad);
        const auto g = on_host.template as<float>();
        r.gradients.emplace_back(g.begin(), g.end());
        r.names.push_back(p.name);
    }
    return r;
}

inline double distance(const std::vector<float>& a, const std::vector<float>& b) {
    double s = 0;
    for (std::size_t i = 0; i < a.size(); ++i)
        s += std::pow(static_cast<double>(a[i]) - static_cast<double>(b[i]), 2);
    return std::sqrt(s);
}
inline double norm(const std::vector<float>& a) {
    return distance(a, std::vector<float>(a.size()));
}

inline double furthest(const std::vector<double>& a, const std::vector<double>& b) {
    double most = 0;
    for (std::size_t k = 0; k < a.size(); ++k) most = std::max(most, std::abs(a[k] - b[k]));
    return most;
}

/// Both ways sum the same products in fp32 in another order, no more. In F32 the bounds are those
/// of the golden test (docs/numerics.md): 2e-6 for what a TTT step tells, 1e-5 for the gradients'
/// relative L2 distance. In Bf16 another order may flip a rounding to bfloat16, which is done in
/// every op: the bound is how far all those roundings together move the same case, the distance of
/// `one` from `exact`, its run in F32.
inline void require_near(const Result& one, const Result& other, const Result* exact) {
    const auto& a = one.metrics[0];
    const auto& b = other.metrics[0];
    const auto* x = exact ? &exact->metrics[0] : nullptr;
    CHECK(a.supervised == b.supervised);
    CHECK(a.acceptance_rows == b.acceptance_rows);
    const double rows = a.acceptance_rows[0];
    CHECK(furthest(a.loss, b.loss) <= (x ? furthest(a.loss, x->loss) : 2e-6));
    CHECK(furthest(a.acceptance_sum, b.acceptance_sum) <=
          (x ? furthest(a.acceptance_sum, x->acceptance_sum) : 2e-6 * rows));
    if (!x) CHECK(a.correct == b.correct);
    for (std::size_t i = 0; i < one.gradients.size(); ++i) {
        INFO(one.names[i]);
        const auto& g = one.gradients[i];
        CHECK(distance(g, other.gradients[i]) <=
              (x ? distance(g, exact->gradients[i]) : 1e-5 * norm(g)));
    }
}

/// Two rows of documents, from one row long to more than one tile of attention.
struct Documents {
    std::vector<Document> all;
    std::vector<Row> packed, alone;
    std::int64_t longest = 0;
    Documents() {
        unsigned seed = 10;
        for (const std::int64_t rows : {70, 9, 1, 23}) {
            all.emplace_back(rows, ++seed);
            longest = std::max(longest, rows);
        }
        packed = {{&all[1], &all[0], &all[2]}, {&all[3]}};
        for (const auto& d : all) alone.push_back({&d});
    }
};

}  // namespace eyas::test::packed
