#pragma once
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

#include "eyas/core/arena.hpp"
#include "eyas/core/bfloat16.hpp"
#include "eyas/core/dtype.hpp"
#include "eyas/device/concept.hpp"
#include "eyas/device/transfer.hpp"
#include "eyas/ops/rotary_frequencies.hpp"

namespace eyas {

/// cos and sin of position * frequency for positions 0 .. rows-1, both halves of a head (E values a
/// row), computed in fp32 and rounded to the model's precision. Grows on reserve(); reading is
/// thread-safe between reserves.
class RotaryTable {
public:
    /// Angles for `rows` positions. Throws DataError for rope parameters that are missing.
    explicit RotaryTable(const ModelConfig& config, std::int64_t rows = 0,
                         DType precision = DType::F32)
        : frequencies_(rotary_frequencies(config)), precision_(precision) {
        reserve(rows);
    }

    /// Makes rows 0 .. rows-1 available; keeps what is there.
    void reserve(std::int64_t rows) {
        const auto half = static_cast<std::int64_t>(frequencies_.inverse.size());
        const auto width = 2 * half;
        for (std::int64_t r = rows_; r < rows; ++r) {
            cos_.resize(static_cast<std::size_t>((r + 1) * width));
            sin_.resize(cos_.size());
            for (std::int64_t j = 0; j < width; ++j) {
                const float position = static_cast<float>(r) / frequencies_.position_divisor;
                const float angle =
                    position * frequencies_.inverse[static_cast<std::size_t>(j % half)];
                const auto at = static_cast<std::size_t>(r * width + j);
                cos_[at] = rounded(std::cos(angle) * frequencies_.amplitude);
                sin_[at] = rounded(std::sin(angle) * frequencies_.amplitude);
            }
        }
        rows_ = std::max(rows_, rows);
    }

    /// Copies of it for a device that has memory of its own, made again after the table grew:
    /// cosines and sines [rows, E], and which axis of the positions each of E columns follows [E].
    struct OnDevice {
        const float *cos = nullptr, *sin = nullptr;
        const std::int64_t* axis = nullptr;
    };
    template <Device D>
    OnDevice on(const D& device) {
        if (placed_rows_ != rows_) {
            const Shape shape{rows_, width()};
            placed_[0] = on_device(device, Tensor::copy_of(view_of(cos_.data(), shape)));
            placed_[1] = on_device(device, Tensor::copy_of(view_of(sin_.data(), shape)));
            placed_[2] = on_device(device, axes());
            placed_rows_ = rows_;
        }
        return {placed_[0].as<float>().data(), placed_[1].as<float>().data(),
                placed_[2].as<std::int64_t>().data()};
    }

    std::int64_t rows() const { return rows_; }
    std::int64_t width() const {
        return 2 * static_cast<std::int64_t>(frequencies_.inverse.size());
    }
    const float* cos(std::int64_t row) const { return cos_.data() + row * width(); }
    const float* sin(std::int64_t row) const { return sin_.data() + row * width(); }
    /// Multimodal sections in units of frequencies (E/2 in total); empty for one-axis positions.
    const std::vector<std::int64_t>& sections() const { return frequencies_.sections; }

private:
    static TensorView view_of(const float* values, const Shape& shape) {
        return {reinterpret_cast<const std::byte*>(values), DType::F32, shape};
    }
    Tensor axes() const {
        Tensor axis = Tensor::zeros(DType::I64, {width()});
        const auto& s = frequencies_.sections;
        for (std::int64_t c = 0, at = 0; !s.empty() && at < width(); ++c)
            for (std::int64_t i = 0; i < s[static_cast<std::size_t>(c) % s.size()]; ++i)
                axis.as<std::int64_t>()[static_cast<std::size_t>(at++)] = c % 3;
        return axis;
    }
    float rounded(float v) const {
        return precision_ == DType::BF16 ? static_cast<float>(BFloat16(v)) : v;
    }

    RotaryFrequencies frequencies_;
    DType precision_;
    std::int64_t rows_ = 0;
    std::vector<float> cos_, sin_;  // [rows, E]
    std::array<Tensor, 3> placed_;
    std::int64_t placed_rows_ = -1;
};

/// The rotation of every row of a batch at one TTT step, looked up once per step: pointers into the
/// table for one-axis positions, gathered rows for three-axis ones.
class RotaryRows {
public:
    RotaryRows() = default;
    /// With memory of its own, assigned.
    RotaryRows(const RotaryTable& table, std::span<const std::int64_t> positions, std::int64_t rows,
               std::int64_t head_dim, std::int64_t offset) {
        own_.build([&](Arena& a) { lay_out(a, rows, head_dim, "rotation"); });
        assign(table, positions, rows, offset);
    }

    /// Memory for up to `rows` rows.
    void lay_out(Arena& arena, std::int64_t rows, std::int64_t head_dim, const char* part) {
        width_ = head_dim;
        arena.give(cos_, rows * head_dim, part);
        arena.give(sin_, rows * head_dim, part);
    }

    /// `positions` [axes, N] with axes 1 or 3; `offset` is added to each (the TTT step).
    /// `table` must hold position + offset rows.
    void assign(const RotaryTable& table, std::span<const std::int64_t> positions,
                std::int64_t rows, std::int64_t offset) {
        const auto& sections = table.sections();
        resize(rows);
        const bool axes =
            !sections.empty() && static_cast<std::int64_t>(positions.size()) == 3 * rows;
        for (std::int64_t r = 0; r < rows; ++r) {
            std::int64_t from = 0;
            const std::size_t chunks = axes ? 2 * sections.size() : 1;
            for (std::size_t c = 0; c < chunks; ++c) {
                const auto size = axes ? sections[c % sections.size()] : width_;
                const auto axis = axes ? static_cast<std::int64_t>(c % 3) : 0;
                const auto position = positions[static_cast<std::size_t>(axis * rows + r)] + offset;
                std::copy_n(table.cos(position) + from, size, cos_.data() + r * width_ + from);
                std::copy_n(table.sin(position) + from, size, sin_.data() + r * width_ + from);
                from += size;
            }
        }
    }
    /// Room for `rows` rows, to be filled through the pointers.
    void resize(std::int64_t rows) {
        cos_.resize(static_cast<std::size_t>(rows * width_));
        sin_.resize(cos_.size());
    }
    float* cos() { return cos_.data(); }
    float* sin() { return sin_.data(); }
    const float* cos(std::int64_t row) const { return cos_.data() + row * width_; }
    const float* sin(std::int64_t row) const { return sin_.data() + row * width_; }

private:
    std::int64_t width_ = 0;
    Arena own_;
    ArenaArray<float> cos_, sin_;  // [N, E]
};

/// RotaryRows::assign on a device; `positions` are the host's, `on_device` the same in its memory.
template <Device D>
void assign_rotation(const D&, RotaryRows& angles, RotaryTable& table,
                     std::span<const std::int64_t> positions, const std::int64_t* /*on_device*/,
                     std::int64_t rows, std::int64_t offset) {
    angles.assign(table, positions, rows, offset);
}

namespace detail {
/// Rotates one head in place. Forward: y = x*cos + rotate_half(x)*sin; each product and the sum are
/// rounded to T, as the reference's tensor expression does. `direction` +1 forward, -1 backward
/// (the transpose of the rotation).
template <class T>
inline void rotate_head(T* x, const float* cos, const float* sin, std::int64_t width,
                        float direction) {
    const auto half = width / 2;
    for (std::int64_t j = 0; j < half; ++j) {
        const float a = static_cast<float>(x[j]), b = static_cast<float>(x[j + half]);
        const auto part = [](float u, float v) { return static_cast<float>(T(u * v)); };
        if (direction > 0) {
            x[j] = T(part(a, cos[j]) + part(-b, sin[j]));
            x[j + half] = T(part(b, cos[j + half]) + part(a, sin[j + half]));
        } else {
            x[j] = T(part(a, cos[j]) + part(b, sin[j + half]));
            x[j + half] = T(part(b, cos[j + half]) + part(-a, sin[j]));
        }
    }
}
}  // namespace detail

/// Rotates the first `heads` heads of each of N rows in place; a row is `stride` elements apart.
/// x [N, stride], heads * E <= stride. The backward of a rotation is rotation with direction -1.
template <class T, Device D>
void rotary(const D& device, T* x, std::int64_t rows, std::int64_t stride, std::int64_t heads,
            std::int64_t head_dim, const RotaryRows& angles, float direction) {
    for_each_light_row(device, rows, 2 * heads * head_dim, [=, &angles](std::int64_t r) {
        for (std::int64_t h = 0; h < heads; ++h)
            detail::rotate_head(x + r * stride + h * head_dim, angles.cos(r), angles.sin(r),
                                head_dim, direction);
    });
}

}  // namespace eyas
