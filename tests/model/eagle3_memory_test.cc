// What a step allocates (nothing), and whether the plan is what the process comes to hold.
#include <malloc.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <new>
#include <numeric>
#include <random>
#include <string>

#include "eyas/checkpoint/snapshot.hpp"
#include "eyas/device/cpu.hpp"
#include "eyas/device/precision.hpp"
#include "eyas/model/eagle3.hpp"
#include "eyas/optimizer/adamw.hpp"
#include "eyas/trainer/memory_plan.hpp"

namespace {
std::atomic<std::uint64_t> allocations{0};

void* counted(std::size_t bytes, std::size_t alignment) {
    ++allocations;
    void* p = nullptr;
    if (::posix_memalign(&p, std::max(alignment, sizeof(void*)), std::max<std::size_t>(bytes, 1)))
        throw std::bad_alloc();
    return p;
}
}  // namespace

void* operator new(std::size_t n) { return counted(n, alignof(std::max_align_t)); }
void* operator new(std::size_t n, std::align_val_t a) {
    return counted(n, static_cast<std::size_t>(a));
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }
void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }

using namespace eyas;
using Catch::Matchers::Contains;

namespace {
Tensor random_tensor(const Shape& shape, unsigned seed) {
    Tensor t(DType::F32, shape);
    std::mt19937 random(seed);
    for (float& v : t.as<float>()) v = static_cast<float>(random() % 2001) / 1000.f - 1.f;
    return t;
}

/// Cpu that does not count what oneDNN's primitives allocate: handles, while a product with packed
/// weights is started.
class QuietCpu : public Cpu {
public:
    template <class T>
    void matmul(const Matmul<T, float>& x) const {
        Cpu::matmul(x);
    }
    template <class T>
    void matmul(const PackedMatmul<T>& x) const {
        uncounted([&] { Cpu::matmul(x); });
    }
    template <class T>
    void pack(const T* weight, std::int64_t out, std::int64_t in, float* packed) const {
        uncounted([&] { Cpu::pack(weight, out, in, packed); });
    }

private:
    template <class F>
    static void uncounted(const F& f) {
        const auto before = allocations.load();
        f();
        allocations = before;
    }
};
static_assert(PackingDevice<QuietCpu>);

/// A draft and one batch of a size.
template <class P, class D = Cpu>
struct Job {
    static ModelConfig config_of(std::int64_t width, std::int64_t vocab) {
        return parse_model_config(Json{{"hidden_size", width},
                                       {"intermediate_size", 2 * width},
                                       {"num_attention_heads", 4},
                                       {"num_key_value_heads", 2},
                                       {"vocab_size", vocab},
                                       {"draft_vocab_size", vocab / 4},
                                       {"max_position_embeddings", 4096}},
                                  "test");
    }
    static VocabMap map_of(std::int64_t vocab) {
        VocabMap m;
        m.d2t.assign(static_cast<std::size_t>(vocab / 4), 0);
        m.t2d.assign(static_cast<std::size_t>(vocab), 0);
        std::fill_n(m.t2d.begin(), vocab / 4, 1);
        return m;
    }

    Job(std::int64_t width, std::int64_t vocab, const Eagle3Options& options)
        : head(random_tensor({vocab, width}, 1)),
          likely(DType::F32, {64, width}),
          model(config_of(width, vocab), options, map_of(vocab), FrozenTarget{head, head}, 1) {
        std::copy_n(head.as<float>().begin(), 64 * width, likely.as<float>().begin());
    }

    Batch batch(std::int64_t tokens) {
        const auto& c = model.config();
        ids = Tensor::zeros(DType::I64, {1, tokens});
        ones = Tensor::zeros(DType::I64, {1, tokens});
        std::ranges::fill(ones.as<std::int64_t>(), 1);
        states = random_tensor({1, tokens, 3 * c.target_hidden_size}, 2);
        target = Tensor(DType::F32, {1, tokens, c.target_hidden_size});
        const auto rows = likely.as<float>();
        for (std::size_t i = 0; i < target.as<float>().size(); ++i)
            target.as<float>()[i] = rows[i % rows.size()];
        return {ids, ones, ones, states, target, {}, {"s"}};
    }

    Tensor head, ids, ones, states, target;
    // likely [64, D]: rows of the head: states whose most likely token is one of the draft's, so
    // that every row is in the loss and all that is planned for the heads gets used.
    Tensor likely;
    Eagle3<D, P> model;
};

/// Without what was freed and only waits to be used again: oneDNN's copies of operands, while a
/// product runs.
double resident_bytes() {
    ::malloc_trim(0);
    std::ifstream in("/proc/self/statm");
    double all = 0, resident = 0;
    in >> all >> resident;
    return resident * 4096;
}
}  // namespace

namespace {
/// On one thread: products on several allocate inside oneDNN.
template <class P, class D>
void require_no_allocation(Eagle3Options options) {
    const int threads = omp_get_max_threads();
    omp_set_num_threads(1);
    for (const auto loss : {LossType::CrossEntropy, LossType::LkLambda}) {
        options.loss = loss;
        Job<P, D> job(64, 800, options);
        auto batch = job.batch(150);
        (void)job.model.forward_backward(batch, 1.f);  // threads get their scratch, too
        auto before = allocations.load();
        const double loss_again = job.model.forward_backward(batch, 1.f).total_loss;
        CHECK(allocations.load() == before);
        CHECK(loss_again > 0);
        batch = job.batch(149);  // fewer rows
        before = allocations.load();
        (void)job.model.forward_backward(batch, 1.f);
        (void)job.model.evaluate(batch);
        CHECK(allocations.load() == before);
        batch = job.batch(300);  // more
        before = allocations.load();
        (void)job.model.forward_backward(batch, 1.f);
        CHECK(allocations.load() > before);
    }
    omp_set_num_threads(threads);
}
}  // namespace

TEMPLATE_TEST_CASE("a step allocates nothing once there is memory for its rows", "", F32, Bf16) {
    require_no_allocation<TestType, Cpu>({.ttt_length = 3, .packed_weights = false});
    require_no_allocation<TestType, QuietCpu>({.ttt_length = 3});
}

TEMPLATE_TEST_CASE("the plan is what the process comes to hold, within 5 %", "", F32, Bf16) {
    constexpr std::int64_t width = 256, vocab = 16000, tokens = 1500;
    const Eagle3Options options{.ttt_length = 4};
    {
        Job<TestType> warm(64, 800, options);  // code and the libraries' own memory
        (void)warm.model.forward_backward(warm.batch(200), 1.f);
    }
    const auto planned = memory_plan<Eagle3<Cpu, TestType>>(Job<TestType>::config_of(width, vocab),
                                                            options, tokens, 0, true);
    const auto head = random_tensor({vocab, width}, 1);
    const double before = resident_bytes();
    auto job = std::make_unique<Job<TestType>>(width, vocab, options);
    job->head = Tensor();
    AdamW<Cpu> optimizer(job->model.device(), job->model.parameters());
    auto batch = job->batch(tokens);
    const double inputs = static_cast<double>(4 * width * tokens * 4 + 2 * tokens * 8);
    (void)job->model.forward_backward(batch, 1.f);
    optimizer.step(1e-3);
    CheckpointSnapshot snapshot;  // of a trainer that writes checkpoints while it trains
    snapshot.reserve(
        {job->model.parameters(), job->model.vocab_map(), job->model.config(), optimizer.state()});
    const double held = resident_bytes() - before - inputs;
    INFO("planned " << planned.total() << ", held " << held << "\n" << planned.text());
    CHECK(held == Approx(static_cast<double>(planned.total())).epsilon(0.05));
}

TEST_CASE("a TTT step takes less than half the memory where its activations are computed again") {
    const auto of_steps = [](Activations a, std::int64_t ttt_length) {
        const auto plan = memory_plan<Eagle3<Cpu, F32>>(
            Job<F32>::config_of(256, 800),
            Eagle3Options{.ttt_length = ttt_length, .activations = a}, 1000, 0);
        const auto it =
            std::ranges::find(plan.parts, "step: activations of the TTT steps", &ArenaPart::name);
        REQUIRE(it != plan.parts.end());
        return it->bytes;
    };
    const auto kept = of_steps(Activations::Keep, 7) - of_steps(Activations::Keep, 6),
               again = of_steps(Activations::Recompute, 7) - of_steps(Activations::Recompute, 6);
    CHECK(again < kept / 2);
    CHECK(again > 0);
}

TEST_CASE("a budget that does not suffice is refused with what would help") {
    const auto config = Job<F32>::config_of(64, 800);
    const auto plan =
        memory_plan<Eagle3<Cpu, F32>>(config, Eagle3Options{.ttt_length = 7}, 4096, 1'000'000);
    CHECK(plan.total() > 1'000'000);
    CHECK(plan.parts.back().name == "loader: ring");
    const auto copying = memory_plan<Eagle3<Cpu, F32>>(config, Eagle3Options{.ttt_length = 7}, 4096,
                                                       1'000'000, true);
    CHECK(copying.total() > plan.total());
    CHECK_THROWS_WITH(copying.require_within(plan.total()), Contains("async_checkpoints"));
    CHECK_THROWS_WITH(plan.require_within(1000), !Contains("async_checkpoints"));
    CHECK_THROWS_WITH(plan.require_within(1000), Contains("--no-packed-weights"));
    CHECK(std::accumulate(plan.parts.begin(), plan.parts.end(), std::uint64_t{0},
                          [](std::uint64_t n, const ArenaPart& p) { return n + p.bytes; }) ==
          plan.total());
    CHECK_NOTHROW(plan.require_within(plan.total()));
    CHECK_NOTHROW(plan.require_within(0));  // no budget
    CHECK_THROWS_WITH(plan.require_within(plan.total() - 1), Contains("max_len") && Contains("MB"));
    CHECK_THROWS_AS(plan.require_within(1000), ResourceError);
}
