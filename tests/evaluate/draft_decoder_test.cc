#include "eyas/evaluate/draft_decoder.hpp"

#include <catch2/catch.hpp>
#include <numeric>

#include "tests/evaluate/tiny_pair.hpp"

using namespace eyas;
using eyas::test::every;
using eyas::test::Ids;
using eyas::test::random_ids;

namespace {

constexpr std::int64_t D = 32, Dt = 48, V = 64, steps = 5, rows = 96;

Tensor random_tensor(const Shape& shape, std::uint32_t seed, float deviation = 1) {
    Tensor t(DType::F32, shape);
    std::mt19937 random(seed);
    std::normal_distribution<float> normal(0, deviation);
    for (float& v : t.as<float>()) v = normal(random);
    return t;
}

struct Case {
    bool fc_norm = false, norm_output = true;
    std::int64_t kv_heads = 2, every_id = 2;
};

/// A training draft and one sample of a made-up target whose states are wider than the draft's.
struct Sample {
    VocabMap map;
    Tensor embed = random_tensor({V, D}, 1), head = random_tensor({V, Dt}, 2, 0.2f);
    Eagle3<Cpu, F32> model;
    Ids ids = random_ids(rows, V, 3), loss, ones = Ids(rows, 1);
    Tensor captured = random_tensor({rows, 3 * Dt}, 4), last = random_tensor({rows, Dt}, 5);

    explicit Sample(const Case& c)
        : map(every(c.every_id, V)),
          model(parse_model_config({{"hidden_size", D},
                                    {"target_hidden_size", Dt},
                                    {"intermediate_size", 80},
                                    {"num_attention_heads", 4},
                                    {"num_key_value_heads", c.kv_heads},
                                    {"head_dim", 16},
                                    {"vocab_size", V},
                                    {"draft_vocab_size", map.draft_vocab_size()},
                                    {"fc_norm", c.fc_norm},
                                    {"norm_output", c.norm_output}},
                                   "test"),
                {.ttt_length = steps}, map, {embed, head}, 1) {
        test::enlarge(model.parameters(), 8, 6);
        for (std::int64_t i = 0; i < rows; ++i) loss.push_back(i % 3 != 0 && i + 1 < rows);
    }

    std::vector<NamedTensor> weights() { return draft_tensors(model.parameters(), map); }

    StepMetrics trained() {
        const auto integers = [](const Ids& v) {
            return TensorView{reinterpret_cast<const std::byte*>(v.data()), DType::I64, {1, rows}};
        };
        const Batch batch{integers(ids),
                          integers(ones),
                          integers(loss),
                          {captured.view().data, DType::F32, {1, rows, 3 * Dt}},
                          {last.view().data, DType::F32, {1, rows, Dt}},
                          {},
                          {"s"}};
        return model.evaluate(batch);
    }

    /// Target logits of position q, in double.
    std::vector<double> teacher(std::int64_t q) const {
        std::vector<double> z;
        for (std::int64_t v = 0; v < V; ++v) {
            double sum = 0;
            for (std::int64_t i = 0; i < Dt; ++i)
                sum += static_cast<double>(last.as<float>()[static_cast<std::size_t>(q * Dt + i)]) *
                       static_cast<double>(head.as<float>()[static_cast<std::size_t>(v * Dt + i)]);
            z.push_back(sum);
        }
        return z;
    }
};

double log_sum(const std::vector<double>& z) {
    const double top = std::ranges::max(z);
    double sum = 0;
    for (auto v : z) sum += std::exp(v - top);
    return top + std::log(sum);
}

/// What docs/numerics.md says of one row: logits of the draft against the teacher of position q.
void score(const Sample& s, std::span<const float> logits, std::int64_t q, std::size_t k,
           StepMetrics& m) {
    const auto z = s.teacher(q);
    const std::vector<double> y(logits.begin(), logits.end());
    const auto token = std::ranges::max_element(z) - z.begin();
    m.supervised[k] += 1;
    m.correct[k] += s.map.target_id(std::ranges::max_element(y) - y.begin()) == token;
    if (!s.map.t2d[static_cast<std::size_t>(token)]) return;
    m.acceptance_rows[k] += 1;
    const double all_z = log_sum(z), all_y = log_sum(y);
    for (std::size_t w = 0; w < y.size(); ++w) {
        const auto id = static_cast<std::size_t>(s.map.target_id(static_cast<std::int64_t>(w)));
        m.acceptance_sum[k] += std::min(std::exp(z[id] - all_z), std::exp(y[w] - all_y));
    }
}

/// Row p follows rows 0 .. p-1; then the text's own tokens are a draft of it, row by row.
StepMetrics decoded(Sample& s, DraftDecoder<Cpu>& draft) {
    StepMetrics m;
    for (auto* v : {&m.correct, &m.supervised, &m.acceptance_sum, &m.acceptance_rows})
        v->assign(steps, 0);
    auto cache = draft.make_cache(rows + steps);
    KvCache::Sequence sequence;
    std::vector<float> state(D), logits(static_cast<std::size_t>(s.map.draft_vocab_size()));
    for (std::int64_t p = 0; p + 1 < rows; ++p) {
        draft.project(s.captured.as<float>().data() + p * 3 * Dt, 1, state.data());
        Ids parents;
        for (std::int64_t k = 0; k < steps && p + k + 1 < rows; ++k) {
            const std::int64_t id = s.ids[static_cast<std::size_t>(p + k + 1)];
            NewRows row{&sequence, 1};
            if (k > 0) parents.push_back(k - 2), row = {&sequence, 1, parents, k - 1};
            draft.forward(state.data(), {&id, 1}, {&row, 1}, cache, state.data());
            REQUIRE(sequence.length() == p + 1);
            if (!s.loss[static_cast<std::size_t>(p + k)]) continue;
            draft.logits(state.data(), 1, logits.data());
            score(s, logits, p + k + 1, static_cast<std::size_t>(k), m);
        }
    }
    return m;
}

}  // namespace

TEST_CASE("a draft that decodes computes what the training step computes", "[evaluate]") {
    const auto c = GENERATE(Case{}, Case{.fc_norm = true}, Case{.norm_output = false},
                            Case{true, true, 4, 1}, Case{false, true, 1, 4});
    Sample s(c);
    DraftDecoder<Cpu> draft(s.model.config(), s.map, s.weights(), s.embed);
    const auto want = s.trained(), got = decoded(s, draft);
    CHECK(got.supervised == want.supervised);
    CHECK(got.acceptance_rows == want.acceptance_rows);
    CHECK(got.correct == want.correct);
    CHECK(std::accumulate(want.correct.begin(), want.correct.end(), 0.0) > 0);
    for (std::size_t k = 0; k < steps; ++k) {
        INFO("step " << k << ", " << want.acceptance_rows[k] << " rows");
        // min(p, softmax(y)) summed changes by at most max |dy|. A row's logits go through 8
        // roundings of sums of up to 144 products a step, of unit u = 6e-8 each: |dy| <= 8
        // sqrt(144) u |y| = 6e-6 |y|, half of it on average and with either sign; |y| is about 1
        // and more steps add theirs. The golden test's bound for a TTT step, 2e-6 a row
        // (docs/numerics.md), is within that.
        CHECK(std::abs(got.acceptance_sum[k] - want.acceptance_sum[k]) <=
              2e-6 * want.acceptance_rows[k]);
        CHECK(want.acceptance_sum[k] > 0.05 * want.acceptance_rows[k]);
    }
}

TEST_CASE("rows of many sequences have the states that they have alone", "[evaluate]") {
    Sample s({.fc_norm = true});
    DraftDecoder<Cpu> draft(s.model.config(), s.map, s.weights(), s.embed);
    std::vector<float> input(rows * D), together(rows * D), alone(rows * D);
    draft.project(s.captured.as<float>().data(), rows, input.data());
    auto cache = draft.make_cache(2 * rows + 64);
    KvCache::Sequence a, b, one;
    const std::vector<NewRows> both{{&a, 13}, {&b, rows - 13}};
    draft.forward(input.data(), s.ids, both, cache, together.data());
    for (std::int64_t r = 0; r < rows; ++r) {
        if (r == 13) cache.truncate(one, 0);
        const NewRows row{&one, 1};
        std::vector<float> own(D);
        draft.project(s.captured.as<float>().data() + r * 3 * Dt, 1, own.data());
        draft.forward(own.data(), std::span(s.ids).subspan(static_cast<std::size_t>(r), 1),
                      {&row, 1}, cache, alone.data() + r * D);
    }
    CHECK(together == alone);
}

TEST_CASE("bfloat16 weights are read as their values", "[evaluate]") {
    Sample s({});
    auto weights = s.weights();
    std::vector<Tensor> narrow;
    for (auto& w : weights) {
        if (w.tensor.dtype != DType::F32) continue;
        narrow.emplace_back(DType::BF16, w.tensor.shape);
        convert_into(w.tensor, narrow.back().mutable_view());
        w.tensor = narrow.back().view();
    }
    DraftDecoder<Cpu> of_narrow(s.model.config(), s.map, weights, s.embed);
    std::size_t i = 0;
    for (const auto& p : s.model.parameters()) convert_into(narrow[i++], p.value);
    DraftDecoder<Cpu> of_wide(s.model.config(), s.map, s.weights(), s.embed);
    const auto states = [&](DraftDecoder<Cpu>& draft) {
        std::vector<float> x(rows * D);
        draft.project(s.captured.as<float>().data(), rows, x.data());
        auto cache = draft.make_cache(rows);
        KvCache::Sequence sequence;
        const NewRows all{&sequence, rows};
        draft.forward(x.data(), s.ids, {&all, 1}, cache, x.data());
        return x;
    };
    CHECK(states(of_narrow) == states(of_wide));
}

TEST_CASE("weights that do not fit are refused by name", "[evaluate]") {
    Sample s({.fc_norm = true});
    const auto config = s.model.config();
    const auto with = [&](std::vector<NamedTensor> weights) {
        return DraftDecoder<Cpu>(config, s.map, weights, s.embed);
    };
    for (std::size_t i = 0; i < s.weights().size(); ++i) {
        auto weights = s.weights();
        const auto name = weights[i].name;
        if (name == "d2t" || name == "t2d") continue;
        INFO(name);
        auto shape = weights[i].tensor.shape;
        weights[i].tensor.shape =
            shape.rank() == 1 ? Shape{shape[0] - 1} : Shape{shape[0] - 1, shape[1]};
        CHECK_THROWS_AS(with(weights), DataError);
        CHECK_THROWS_WITH(with(weights), Catch::Contains(name));
        if (shape.rank() == 2 && shape[0] != shape[1]) {  // as many numbers, the other way round
            weights[i].tensor.shape = Shape{shape[1], shape[0]};
            CHECK_THROWS_WITH(with(weights), Catch::Contains(name));
        }
        weights.erase(weights.begin() + static_cast<std::ptrdiff_t>(i));
        CHECK_THROWS_AS(with(weights), DataError);
        CHECK_THROWS_WITH(with(weights), Catch::Contains("'" + name + "'"));
    }
    const auto other = random_tensor({V, D + 16}, 1);
    CHECK_THROWS_AS(DraftDecoder<Cpu>(config, s.map, s.weights(), other), DataError);
    CHECK_THROWS_AS(DraftDecoder<Cpu>(config, every(4, V), s.weights(), s.embed), DataError);
    CHECK_THROWS_AS(DraftDecoder<Cpu>(config, every(2, V + 1), s.weights(), s.embed), DataError);
}

TEST_CASE("positions and room end with an error that changes nothing", "[evaluate]") {
    Sample s({});
    auto config = s.model.config();
    config.max_position_embeddings = 20;
    DraftDecoder<Cpu> draft(config, s.map, s.weights(), s.embed);
    std::vector<float> x(rows * D, 0.5f);
    auto cache = draft.make_cache(64);
    KvCache::Sequence sequence;
    const auto feed = [&](std::int64_t n, KvCache& to) {
        const NewRows row{&sequence, n};
        draft.forward(x.data(), std::span(s.ids).first(static_cast<std::size_t>(n)), {&row, 1}, to,
                      x.data());
    };
    CHECK_THROWS_AS(feed(21, cache), DataError);
    CHECK(sequence.length() == 0);
    feed(20, cache);
    CHECK(sequence.length() == 20);
    CHECK_THROWS_WITH(feed(1, cache), Catch::Contains("20 positions"));
    CHECK(sequence.length() == 20);
    cache.release(sequence);
    auto small = draft.make_cache(16);
    CHECK_THROWS_AS(feed(17, small), ResourceError);
    CHECK(sequence.length() == 0);
    feed(16, small);
}
