#pragma once
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "eyas/device/block_product.hpp"
#include "eyas/device/cpu.hpp"
#include "eyas/device/transfer.hpp"
#include "eyas/model/concept.hpp"
#include "eyas/ops/attention.hpp"
#include "eyas/ops/attention_backward.hpp"
#include "eyas/ops/distillation_rows.hpp"
#include "eyas/ops/embedding.hpp"
#include "eyas/ops/linear.hpp"
#include "eyas/ops/rms_norm.hpp"
#include "eyas/ops/rotary.hpp"
#include "eyas/ops/rows.hpp"
#include "eyas/ops/swiglu.hpp"
#include "eyas/optimizer/adamw.hpp"
#include "eyas/optimizer/clip.hpp"
#include "report.hpp"

namespace eyas::test {

using Numbers = std::vector<double>;

/// An array of a device, with what the host put there.
template <class T>
class Values {
public:
    template <Device D>
    Values(const D& device, const std::vector<T>& host)
        : n_(static_cast<std::int64_t>(host.size())),
          bytes_(DType::U8, {n_ * static_cast<std::int64_t>(sizeof(T))}, device.memory()) {
        upload(device, std::span<const T>(host), data());
    }
    T* data() { return reinterpret_cast<T*>(bytes_.mutable_view().data); }
    template <Device D>
    std::vector<T> host(const D& device) {
        std::vector<T> v(static_cast<std::size_t>(n_));
        download(device, data(), std::span<T>(v));
        return v;
    }
    template <Device D>
    void add_to(Numbers& all, const D& device) {
        for (const T& x : host(device))
            if constexpr (std::is_same_v<T, BFloat16>)
                all.push_back(static_cast<double>(static_cast<float>(x)));
            else
                all.push_back(static_cast<double>(x));
    }

private:
    std::int64_t n_;
    Tensor bytes_;
};

/// Numbers in [-1, 1), the same for every device.
class Source {
public:
    template <class T>
    std::vector<T> of(std::int64_t n, float scale = 1.f) {
        std::vector<T> v;
        for (std::int64_t i = 0; i < n; ++i)
            v.push_back(T(scale * (static_cast<float>(random_() % 4096) / 2048.f - 1.f)));
        return v;
    }
    std::vector<std::int64_t> ids(std::int64_t n, std::int64_t end) {
        std::vector<std::int64_t> v;
        for (std::int64_t i = 0; i < n; ++i)
            v.push_back(static_cast<std::int64_t>(random_()) % end);
        return v;
    }

private:
    std::mt19937 random_{7};
};

template <class T>
std::vector<T> empty(std::int64_t n) {
    return std::vector<T>(static_cast<std::size_t>(n));
}

/// First rows of documents [batch, tokens]: some a row, one of them of a single token.
inline std::vector<std::int64_t> documents(std::int64_t batch, std::int64_t tokens) {
    std::vector<std::int64_t> v;
    for (std::int64_t b = 0; b < batch; ++b)
        for (std::int64_t t = 0, first = 0; t < tokens; ++t) {
            const auto alone = b % 2 == 0 ? std::int64_t{1} : tokens - 1;
            if (t == alone || t == tokens / 3 || t == tokens / 2 + b) first = t;
            v.push_back(first);
        }
    return v;
}

template <class T, Device D>
Numbers rms_norm_case(const D& d) {
    const std::int64_t n = 131, width = 300, stride = 308;
    Source s;
    Values<T> x(d, s.of<T>(n * stride)), w(d, s.of<T>(width)), y(d, s.of<T>(n * stride)),
        dy(d, s.of<T>(n * stride)), dx(d, s.of<T>(n * stride));
    Values<float> rms(d, empty<float>(n)), dw(d, s.of<float>(width));
    rms_norm(d, x.data(), stride, w.data(), y.data(), stride, rms.data(), n, width, 1e-5f);
    rms_norm_backward(d, x.data(), stride, w.data(), dy.data(), stride, dx.data(), stride,
                      rms.data(), dw.data(), n, width);
    rms_norm_backward(d, x.data(), stride, w.data(), y.data(), stride, static_cast<T*>(nullptr),
                      stride, rms.data(), dw.data(), n, width);
    Numbers all;
    y.add_to(all, d), rms.add_to(all, d), dx.add_to(all, d), dw.add_to(all, d);
    return all;
}

template <class T, Device D>
Numbers swiglu_case(const D& d) {
    const std::int64_t n = 37, width = 300;
    Source s;
    Values<T> gate_up(d, s.of<T>(n * 2 * width, 4.f)), a(d, empty<T>(n * width)),
        da(d, s.of<T>(n * width));
    swiglu(d, gate_up.data(), a.data(), n, width);
    swiglu_backward(d, gate_up.data(), da.data(), n, width);
    Numbers all;
    a.add_to(all, d), gate_up.add_to(all, d);
    return all;
}

template <class T, Device D>
Numbers rows_case(const D& d) {
    const std::int64_t n = 45, width = 67;
    Source s;
    auto order = empty<std::int64_t>(n);
    for (std::int64_t i = 0; i < n; ++i) order[static_cast<std::size_t>(i)] = (i * 7 + 3) % n;
    auto holes = order;
    holes[4] = holes[11] = -1;
    Values<std::int64_t> index(d, order), some(d, holes), ids(d, s.ids(n, n)),
        document(d, documents(3, n / 3)), one_a_row(d, empty<std::int64_t>(n)),
        shifted(d, empty<std::int64_t>(n)), moved(d, empty<std::int64_t>(n));
    Values<T> table(d, s.of<T>(n * width)), a(d, s.of<T>(n * width)), b(d, s.of<T>(n * width)),
        c(d, s.of<T>(n * width)), e(d, s.of<T>(n * width));
    Values<float> z(d, s.of<float>(n * width));
    Values<BFloat16> narrow(d, s.of<BFloat16>(n * width));
    gather_rows(d, table.data(), some.data(), a.data(), n, width);
    scatter_rows(d, table.data(), index.data(), b.data(), n, width);
    embedding(d, table.data(), ids.data(), c.data(), n, width);
    add(d, c.data(), b.data(), n * width);
    copy_columns(d, table.data() + 3, width, b.data() + 1, width, n, width - 7);
    round_into(d, z.data(), e.data(), n * width);
    const Shape shape{n, width};
    convert_on(d, {reinterpret_cast<const std::byte*>(z.data()), DType::F32, shape},
               {reinterpret_cast<std::byte*>(narrow.data()), DType::BF16, shape});
    round_in_place<T>(d, z.data(), n * width);
    shift_left(d, ids.data(), shifted.data(), one_a_row.data(), 3, n / 3, 4, 1);
    shift_left(d, ids.data(), moved.data(), document.data(), 3, n / 3, 2, 1);
    Numbers all;
    for (auto* v : {&a, &b, &c, &e}) v->add_to(all, d);
    z.add_to(all, d), narrow.add_to(all, d), shifted.add_to(all, d), moved.add_to(all, d);
    return all;
}

template <class T, Device D>
Numbers linear_case(const D& d) {
    const std::int64_t n = 72, in = 96, out = 80, stride = 104;
    Source s;
    Values<T> x(d, s.of<T>(n * stride)), w(d, s.of<T>(out * in)), y(d, s.of<T>(n * stride)),
        z(d, s.of<T>(n * stride)), residual(d, s.of<T>(n * out)), sum(d, empty<T>(n * out)),
        dx(d, s.of<T>(n * stride)), dz(d, s.of<T>(n * stride));
    Values<float> dw(d, s.of<float>(out * in));
    RoundingScratch scratch;
    Arena arena;
    arena.build([&](Arena& a) { a.give(scratch, n * in, "scratch"); }, d.memory());
    linear(d, x.data(), stride, w.data(), y.data(), stride, n, in, out, false, scratch);
    linear(d, x.data(), stride, w.data(), z.data(), stride, n, in, out, true, scratch);
    linear_residual(d, x.data(), LinearWeight<T>{w.data(), out, in}, residual.data(), sum.data(), n,
                    scratch);
    linear_backward_input(d, x.data(), stride, w.data(), dx.data(), stride, n, in, out, false,
                          scratch);
    linear_backward_input(d, x.data(), stride, w.data(), dz.data(), stride, n, in, out, true,
                          scratch);
    linear_backward_weight(d, z.data(), stride, x.data(), stride, dw.data(), n, in, out);
    Numbers all;
    for (auto* v : {&y, &z, &residual, &sum, &dx, &dz}) v->add_to(all, d);
    dw.add_to(all, d);
    return all;
}

/// All four kinds of a product, twice in a batch, as `multiply` computes them: onto nothing, onto
/// itself, onto another array.
template <class T, Device D, class F>
Numbers product_case(const D& d, F multiply) {
    const std::int64_t m = 33, n = 21, k = 43, ld = 45;
    Source s;
    Numbers all;
    for (const Op a : {Op::None, Op::Transposed})
        for (const Op b : {Op::None, Op::Transposed}) {
            Values<T> x(d, s.of<T>(2 * ld * ld)), y(d, s.of<T>(2 * ld * ld));
            Values<float> z(d, s.of<float>(2 * m * ld)), w(d, s.of<float>(2 * m * ld)),
                apart(d, s.of<float>(2 * m * ld));
            BatchedMatmul<T, float> product{{a, b, m, n, k, x.data(), ld, y.data(), ld, z.data(),
                                             ld, 0.5f, b == Op::None ? 0.f : 2.f},
                                            2,
                                            ld * ld,
                                            ld * ld,
                                            m * ld};
            multiply(product);
            product.each.c = w.data(), product.each.beta = 3.f, product.addend = apart.data();
            multiply(product);
            for (auto* v : {&z, &w, &apart}) v->add_to(all, d);
        }
    return all;
}

/// Of `device`, and without a library, beside Cpu's. k = 43 terms.
template <class T, class D>
void compare_products(const D& device, golden::Report& report) {
    const Cpu cpu;
    const auto want = product_case<T>(cpu, [&](const BatchedMatmul<T, float>& x) {
        for (std::int64_t i = 0; i < x.count; ++i) {
            auto one = x.each;
            one.a += i * x.stride_a, one.b += i * x.stride_b, one.c += i * x.stride_c;
            for (std::int64_t r = 0; x.addend && r < one.m; ++r)
                std::copy_n(x.addend + i * x.stride_c + r * one.ldc, one.n, one.c + r * one.ldc);
            cpu.matmul(one);
        }
    });
    const auto of = std::string(D::name) + (std::is_same_v<T, BFloat16> ? " bf16" : " fp32");
    const auto by_device = [&](const auto& x) { device.matmul(x); };
    const auto plain = [&](const auto& x) { plain_product(device, x); };
    report.check(of, "products", golden::relative_l2(product_case<T>(device, by_device), want),
                 1e-6);
    report.check(of, "plain products", golden::relative_l2(product_case<T>(device, plain), want),
                 1e-6);
}

template <class T, Device D>
Numbers rotary_case(const D& d) {
    Numbers all;
    for (const bool three : {false, true}) {
        const std::int64_t n = 21, heads = 3, width = 8, stride = 30;
        Json json{{"hidden_size", 24},        {"intermediate_size", 24}, {"num_attention_heads", 3},
                  {"num_key_value_heads", 1}, {"vocab_size", 32},        {"draft_vocab_size", 16}};
        if (three) json["rope_scaling"] = {{"type", "mrope"}, {"mrope_section", {1, 2, 1}}};
        RotaryTable table(parse_model_config(json, "test"), 40, dtype_of<T>);
        Source s;
        const auto positions = s.ids(three ? 3 * n : n, 30);
        Values<std::int64_t> on(d, positions);
        Values<T> x(d, s.of<T>(n * stride));
        RotaryRows angles;
        Arena arena;
        arena.build([&](Arena& a) { angles.lay_out(a, n, width, "angles"); }, d.memory());
        assign_rotation(d, angles, table, std::span<const std::int64_t>(positions), on.data(), n,
                        std::int64_t{2});
        rotary(d, x.data(), n, stride, heads, width, angles, 1.f);
        x.add_to(all, d);
        rotary(d, x.data(), n, stride, heads - 1, width, angles, -1.f);
        x.add_to(all, d);
    }
    return all;
}

/// Forward and backward of the last of `steps` TTT steps; `packed`: of rows of documents.
template <class T, Device D>
Numbers attention_case(const D& d, std::int64_t tokens, std::int64_t steps, std::int64_t width = 16,
                       bool packed = false) {
    const std::int64_t batch = 2, heads = 4, groups = 2, stride = (heads + 2 * groups) * width + 8,
                       rows = batch * tokens, q_width = heads * width;
    Source s;
    auto seen = s.ids(rows, 4);
    for (auto& m : seen) m = m > 0;
    seen[0] = 0;  // a row that sees no key of step 0
    Values<std::int64_t> mask(d, seen), document(d, documents(batch, tokens));
    std::vector<Values<T>> qkv;
    std::vector<Values<float>> dk, dv;
    for (std::int64_t j = 0; j < steps; ++j) {
        qkv.emplace_back(d, s.of<T>(rows * stride));
        dk.emplace_back(d, s.of<float>(rows * q_width));
        dv.emplace_back(d, s.of<float>(rows * q_width));
    }
    std::vector<const T*> k, v;
    std::vector<float*> pk, pv;
    for (std::size_t j = 0; j < qkv.size(); ++j) {
        k.push_back(qkv[j].data() + q_width);
        v.push_back(qkv[j].data() + q_width + groups * width);
        pk.push_back(dk[j].data()), pv.push_back(dv[j].data());
    }
    Values<T> out(d, empty<T>(rows * q_width)), g(d, s.of<T>(rows * q_width)),
        dqkv(d, empty<T>(rows * stride));
    Values<float> log_sum(d, empty<float>(rows * heads));
    const TttAttention<T> a{batch,
                            tokens,
                            heads,
                            groups,
                            width,
                            steps - 1,
                            mask.data(),
                            qkv.back().data(),
                            stride,
                            k.data(),
                            v.data(),
                            stride,
                            packed ? document.data() : nullptr};
    ttt_attention(d, a, out.data(), q_width, log_sum.data());
    Values<float> d_scores(d, empty<float>(rows * heads * steps)),
        probabilities(d, empty<float>(rows * heads * steps));
    const DiagonalColumns diagonal{d_scores.data(), probabilities.data()};
    ttt_attention_backward(d, a, log_sum.data(), g.data(), q_width, dqkv.data(), stride, pk[0],
                           pv[0], diagonal);
    ttt_attention_backward_diagonal(d, a, diagonal, g.data(), q_width, pk.data(), pv.data());
    reduce_kv_gradient(d, a, pk[0], dqkv.data() + q_width, stride);
    round_rows(d, pv.back(), dqkv.data() + q_width + groups * width, stride, rows, groups * width);
    Numbers all;
    out.add_to(all, d), dqkv.add_to(all, d);
    for (double l : log_sum.host(d)) all.push_back(std::isinf(l) ? -1 : l);
    for (std::size_t j = 0; j < dk.size(); ++j) dk[j].add_to(all, d), dv[j].add_to(all, d);
    return all;
}

/// `kind` 0: cross-entropy, 1: acceptance, 2: log acceptance.
template <class T, Device D>
Numbers heads_case(const D& d, int kind) {
    const std::int64_t n = 19, width = 700, rest = 333;
    Source s;
    auto draft = s.of<float>(n * width, 6.f), others = s.of<float>(n * rest, 6.f);
    draft[5] = draft[400] = 7.f;  // a tie within a tile: the lowest id
    draft[static_cast<std::size_t>(width) + 3] = others[static_cast<std::size_t>(rest)] =
        7.f;  // a tie between tiles
    std::vector<std::int64_t> ids, other_ids, used;
    for (std::int64_t i = 0; i < width; ++i) ids.push_back(2 * i);
    for (std::int64_t i = 0; i < rest; ++i) other_ids.push_back(2 * i + 1);
    for (std::int64_t i = 0; i < n - 2; ++i) used.push_back(i + 1);
    Values<float> z(d, draft), tile(d, others), logits(d, s.of<float>(n * width, 5.f));
    Values<std::int64_t> order(d, ids), other(d, other_ids), use(d, used);
    Values<TeacherRow> rows(d, empty<TeacherRow>(n));
    start_rows(d, rows.data(), n);
    visit_rows(d, rows.data(), z.data(), n, order.data(), width);
    visit_rows(d, rows.data(), tile.data(), n, other.data(), rest);
    Numbers all;
    std::vector<KeptRow> kept;
    for (const auto& r : rows.host(d)) {
        all.push_back(static_cast<double>(r.token)), all.push_back(r.log_sum());
        kept.push_back({0, r.token, static_cast<std::int64_t>(kept.size()), r.log_sum(), 0});
    }
    Values<KeptRow> keep(d, kept);
    Values<DraftRow> scored(d, std::vector<DraftRow>(used.size()));
    teacher_probability_rows(d, z.data(), keep.data(), n, width);
    StepWeights w{0.25f, kind > 0 ? -0.5f : 0.f, kind == 2};
    score_rows<T>(d, logits.data(), z.data(), keep.data(), use.data(), scored.data(),
                  static_cast<std::int64_t>(used.size()), width, true, w);
    for (const auto& k : keep.host(d)) all.push_back(k.share);
    for (const auto& r : scored.host(d))
        for (double v : {static_cast<double>(r.best), double{r.loss}, double{r.acceptance},
                         double{r.mean_below}})
            all.push_back(v);
    z.add_to(all, d), logits.add_to(all, d);
    return all;
}

template <class T, Device D>
Numbers adamw_case(const D& d) {
    const std::int64_t n = 5000;
    Source s;
    Values<T> value(d, s.of<T>(n));
    Values<float> grad(d, s.of<float>(n));
    const std::vector<Parameter> parameters{
        {"p",
         {reinterpret_cast<std::byte*>(value.data()), dtype_of<T>, {n}},
         {reinterpret_cast<std::byte*>(grad.data()), DType::F32, {n}}}};
    AdamW<D> optimizer(d, parameters, {.weight_decay = 0.1});
    Numbers all{global_norm(d, std::span(parameters))};
    for (int i = 0; i < 3; ++i) optimizer.step(1e-2, clip_scale(all[0], 0.5));
    value.add_to(all, d);
    for (const auto& state : optimizer.state()) {
        const auto host = on_host(d, state.buffer);
        for (float x : host.template as<float>()) all.push_back(x);
    }
    return all;
}

/// Every op on `device` beside Cpu, in one precision. Bounds: fp32, sums of up to 700 terms in
/// another order and with fused multiply-adds: some roundings of 6e-8 each, 1e-6 relative. bf16:
/// one rounding to another neighbour is 2^-8 of a value; where intermediate results are rounded
/// too, two.
template <class T, Device D>
void compare_ops(const D& device, golden::Report& report) {
    const bool narrow = std::is_same_v<T, BFloat16>;
    const double fine = narrow ? 0x1p-9 : 1e-6, coarse = narrow ? 0x1p-8 : 3e-6;
    const Cpu cpu;
    const auto one = [&](const char* name, double bound, auto f) {
        report.check(std::string(D::name) + (narrow ? " bf16" : " fp32"), name,
                     golden::relative_l2(f(device), f(cpu)), bound);
    };
    compare_products<T>(device, report);
    one("rms_norm and its backward", fine, [](const auto& d) { return rms_norm_case<T>(d); });
    one("swiglu and its backward", fine, [](const auto& d) { return swiglu_case<T>(d); });
    one("gather, scatter, embedding, add, convert, shift", fine,
        [](const auto& d) { return rows_case<T>(d); });
    one("linear and its backward", fine, [](const auto& d) { return linear_case<T>(d); });
    one("rotary, one and three axes", fine, [](const auto& d) { return rotary_case<T>(d); });
    one("attention, step 0", coarse, [](const auto& d) { return attention_case<T>(d, 37, 1); });
    one("attention, step 3, strips", coarse,
        [](const auto& d) { return attention_case<T>(d, 150, 4); });
    one("attention, step 15", coarse,
        [](const auto& d) { return attention_case<T>(d, 20, 16, 40); });
    one("attention of documents, step 0", coarse,
        [](const auto& d) { return attention_case<T>(d, 37, 1, 16, true); });
    one("attention of documents, step 3, strips", coarse,
        [](const auto& d) { return attention_case<T>(d, 150, 4, 16, true); });
    one("heads, cross-entropy", fine, [](const auto& d) { return heads_case<T>(d, 0); });
    one("heads, acceptance", fine, [](const auto& d) { return heads_case<T>(d, 1); });
    one("heads, log acceptance", fine, [](const auto& d) { return heads_case<T>(d, 2); });
    one("AdamW and the norm", fine, [](const auto& d) { return adamw_case<T>(d); });
}

}  // namespace eyas::test
