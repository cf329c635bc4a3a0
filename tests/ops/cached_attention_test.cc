#include "eyas/ops/cached_attention.hpp"

#include <catch2/catch.hpp>
#include <random>

#include "eyas/device/cpu.hpp"

using namespace eyas;

namespace {

/// Keys, values and queries of one sequence in [-1, 1], in blocks that lie in no order; rows see a
/// prefix and listed slots.
struct Job {
    HeadShape shape;
    std::vector<float> keys, values;         // [slots, G*E]
    std::vector<std::vector<float>> memory;  // of blocks, the last slots' first
    std::vector<const float*> blocks;
    std::vector<float> q, out;  // [R, H*E]
    std::vector<std::int64_t> seen, extra, extra_begin;

    Job(HeadShape s, std::int64_t slots, std::vector<std::int64_t> seen_slots, std::uint32_t seed)
        : shape(s), seen(std::move(seen_slots)) {
        std::mt19937 random(seed);
        std::uniform_real_distribution<float> uniform(-1, 1);
        const auto fill = [&](std::int64_t n) {
            std::vector<float> v(static_cast<std::size_t>(n));
            for (auto& x : v) x = uniform(random);
            return v;
        };
        keys = fill(slots * s.kv_width()), values = fill(slots * s.kv_width());
        q = fill(std::ssize(seen) * s.q_width());
        out = fill(std::ssize(seen) * s.q_width());  // is overwritten
        const auto count = (slots + key_block - 1) / key_block;
        // What no row sees must not matter, whatever it is.
        memory.assign(
            static_cast<std::size_t>(count),
            std::vector<float>(static_cast<std::size_t>(s.kv_heads * s.block_size()), 1e30f));
        for (std::int64_t b = 0; b < count; ++b)
            blocks.push_back(memory[static_cast<std::size_t>(count - 1 - b)].data());
        for (std::int64_t slot = 0; slot < slots; ++slot) place(slot, count);
    }

    void place(std::int64_t slot, std::int64_t count) {
        auto* block = memory[static_cast<std::size_t>(count - 1 - slot / key_block)].data();
        for (std::int64_t g = 0; g < shape.kv_heads; ++g, block += shape.block_size())
            for (std::int64_t e = 0; e < shape.head_dim; ++e) {
                const auto i = slot * shape.kv_width() + g * shape.head_dim + e;
                block[e * key_block + slot % key_block] = keys[static_cast<std::size_t>(i)];
                block[(key_block + slot % key_block) * shape.head_dim + e] =
                    values[static_cast<std::size_t>(i)];
            }
    }

    CachedRows rows() {
        return {q.data(), out.data(),      shape.q_width(), shape.q_width(), std::ssize(seen),
                blocks,   std::span(seen), extra,           extra_begin};
    }

    std::vector<std::int64_t> slots_of(std::int64_t r) {
        std::vector<std::int64_t> all;
        for (std::int64_t j = 0; j < seen[static_cast<std::size_t>(r)]; ++j) all.push_back(j);
        for (auto slot : rows().extra_of(r)) all.push_back(slot);
        return all;
    }

    /// Output of row r, head h in double.
    std::vector<double> want(std::int64_t r, std::int64_t h) {
        const auto width = shape.head_dim;
        const auto at = [&](const std::vector<float>& x, std::int64_t slot, std::int64_t e) {
            const auto i = slot * shape.kv_width() + h / shape.group() * width + e;
            return static_cast<double>(x[static_cast<std::size_t>(i)]);
        };
        std::vector<double> result(static_cast<std::size_t>(width));
        double sum = 0;
        for (auto slot : slots_of(r)) {
            double dot = 0;
            for (std::int64_t e = 0; e < width; ++e)
                dot += static_cast<double>(
                           q[static_cast<std::size_t>(r * shape.q_width() + h * width + e)]) *
                       at(keys, slot, e);
            const double weight = std::exp(dot / std::sqrt(static_cast<double>(width)));
            sum += weight;
            for (std::int64_t e = 0; e < width; ++e)
                result[static_cast<std::size_t>(e)] += weight * at(values, slot, e);
        }
        for (auto& x : result) x /= sum;
        return result;
    }
};

/// With |q|, |k| <= 1 a score's fp32 sum of E products errs by E u sqrt(E) after scaling, scaling
/// and the subtracted maximum by 3 u sqrt(E). Weights are off by twice that and by exp_fast's 2e-7
/// (of itself and in the sum), their sum of n by n u, its inverse and the product by 2 u; the sum
/// of n values of at most 1 by n u again. u = 2^-24.
double bound(std::int64_t width, std::int64_t n) {
    const double e = static_cast<double>(width), k = static_cast<double>(n);
    return 0x1p-24 * (2 * (e + 3) * std::sqrt(e) + 2 * k + 2) + 4e-7;
}

void check_close(Job& job) {
    for (std::int64_t r = 0; r < std::ssize(job.seen); ++r)
        for (std::int64_t h = 0; h < job.shape.heads; ++h) {
            const auto want = job.want(r, h);
            const auto limit = bound(job.shape.head_dim, std::ssize(job.slots_of(r)));
            double worst = 0;
            for (std::int64_t e = 0; e < job.shape.head_dim; ++e) {
                const auto i = r * job.shape.q_width() + h * job.shape.head_dim + e;
                worst = std::max(
                    worst, std::abs(static_cast<double>(job.out[static_cast<std::size_t>(i)]) -
                                    want[static_cast<std::size_t>(e)]));
            }
            CAPTURE(r, h);
            CHECK(worst <= limit);
        }
}

// Heads alone, in groups of one, of some that fill no four, of more rows than a tile has; widths
// that fill eights and that do not.
const HeadShape shapes[] = {{2, 2, 8}, {4, 2, 12}, {6, 2, 20}, {9, 3, 64}, {20, 1, 6}, {3, 3, 2}};

}  // namespace

TEST_CASE("a chain's rows see what is before them", "[attention]") {
    for (const auto& shape : shapes)
        for (const std::int64_t first : {0, 3, 15, 16, 31}) {
            CAPTURE(shape.heads, shape.head_dim, first);
            std::vector<std::int64_t> seen;
            for (std::int64_t r = 1; r <= 37; ++r) seen.push_back(first + r);
            Job job(shape, first + 37, seen, 1);
            const CachedRows rows[] = {job.rows()};
            cached_attention(Cpu(), shape, rows);
            check_close(job);
        }
}

TEST_CASE("rows of a tree see a prefix and listed slots", "[attention]") {
    for (const auto& shape : shapes)
        for (const std::int64_t prefix : {0, 1, 16, 29}) {
            CAPTURE(shape.heads, shape.head_dim, prefix);
            Job job(shape, prefix + 40, std::vector<std::int64_t>(5, prefix), 2);
            // One slot; three; more than a block; some across blocks; two.
            job.extra = {prefix, prefix, prefix + 5, prefix + 17};
            job.extra_begin = {0, 1, 4};
            for (std::int64_t i = 0; i < 20; ++i) job.extra.push_back(prefix + 2 * i);
            job.extra_begin.push_back(24);
            for (std::int64_t i : {3, 14, 15, 16, 39}) job.extra.push_back(prefix + i);
            job.extra_begin.push_back(29);
            for (std::int64_t i : {0, 39}) job.extra.push_back(prefix + i);
            job.extra_begin.push_back(31);
            const CachedRows rows[] = {job.rows()};
            cached_attention(Cpu(), shape, rows);
            check_close(job);
        }
}

TEST_CASE("a row's bits depend on the keys it sees, not on slots or rows beside it",
          "[attention]") {
    for (const auto& shape : shapes) {
        CAPTURE(shape.heads, shape.head_dim);
        std::vector<std::int64_t> seen;
        for (std::int64_t r = 1; r <= 40; ++r) seen.push_back(r);
        Job chain(shape, 40, seen, 3);
        const CachedRows all[] = {chain.rows()};
        cached_attention(Cpu(), shape, all);
        const auto width = static_cast<std::size_t>(shape.q_width());
        for (std::size_t r = 0; r < 40; ++r) {
            // Alone, with 10 keys (or fewer) as a prefix and the others listed.
            Job one(shape, 40, {std::min<std::int64_t>(10, static_cast<std::int64_t>(r) + 1)}, 3);
            std::copy_n(chain.q.begin() + static_cast<long>(r * width), width, one.q.begin());
            for (auto j = one.seen[0]; j <= static_cast<std::int64_t>(r); ++j)
                one.extra.push_back(j);
            one.extra_begin = {0, std::ssize(one.extra)};
            const CachedRows rows[] = {one.rows()};
            cached_attention(Cpu(), shape, rows);
            CHECK(std::equal(one.out.begin(), one.out.end(),
                             chain.out.begin() + static_cast<long>(r * width)));
        }
    }
}

TEST_CASE("sequences of one call are apart, and none is fine", "[attention]") {
    const HeadShape shape{4, 2, 12};
    Job a(shape, 20, {19, 20}, 4), b(shape, 50, {50}, 5);
    const CachedRows both[] = {a.rows(), b.rows()};
    cached_attention(Cpu(), shape, both);
    check_close(a);
    check_close(b);
    cached_attention(Cpu(), shape, {});
}

TEST_CASE("a tile that finds no memory is an error of the caller's thread", "[attention]") {
    const HeadShape shape{1, 1, 1};
    Job a(shape, 1, {1}, 6), b(shape, 1, {1}, 7);
    a.seen[0] = b.seen[0] = std::int64_t{1} << 61;  // more than any vector holds
    const CachedRows both[] = {a.rows(), b.rows()};
    CHECK_THROWS_AS(cached_attention(Cpu(), shape, both), std::exception);
    Job good(shape, 20, {20}, 8);
    const CachedRows rows[] = {good.rows()};
    cached_attention(Cpu(), shape, rows);
    check_close(good);
}
