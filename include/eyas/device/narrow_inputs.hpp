#pragma once
#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>

#include "eyas/core/bfloat16.hpp"

#ifdef __x86_64__
#include <immintrin.h>

namespace eyas::detail {

/// What one row's 16 next inputs, or its 16 next pairs of inputs, are to a kernel: one cache line.
struct alignas(64) NarrowPiece {
    std::uint32_t words[16];
};

/// The inputs of some rows as kernels of narrow weights read them: [pieces][rows] pieces, so that a
/// kernel has those of all its rows at fixed distances.
class NarrowInputs {
public:
    enum class Form {
        Floats,   // 16 inputs a piece
        Rounded,  // the same, of inputs that are rounded to bfloat16
        Pairs     // 16 pairs of inputs in bfloat16, the earlier one of a pair in the upper half
    };

    static std::int64_t pieces(std::int64_t in, Form form) {
        const std::int64_t of_piece = form == Form::Pairs ? 32 : 16;
        return (in + of_piece - 1) / of_piece;
    }

    /// Of x [rows, in] to `to` [pieces][rows].
    static void gather(const float* x, std::int64_t rows, std::int64_t in, Form form,
                       NarrowPiece* to) {
        for (std::int64_t r = 0; r < rows; ++r, x += in)
            if (form == Form::Pairs)
                pairs(x, in, to + r, rows);
            else
                floats(x, in, form == Form::Rounded, to + r, rows);
    }

private:
    static void floats(const float* x, std::int64_t in, bool rounded, NarrowPiece* to,
                       std::int64_t stride) {
        for (std::int64_t i = 0; i < in; i += 16, to += stride) {
            const auto n = std::min<std::int64_t>(16, in - i);
            std::memcpy(to->words, x + i, static_cast<std::size_t>(n) * sizeof(float));
            if (!rounded) continue;
            for (auto& word : to->words)
                word = std::uint32_t{BFloat16(std::bit_cast<float>(word)).bits} << 16;
        }
    }

    __attribute__((target("avx512f,avx512bf16"))) static void pairs(const float* x, std::int64_t in,
                                                                    NarrowPiece* to,
                                                                    std::int64_t stride) {
        constexpr __mmask16 all = 0xffff;
        std::int64_t i = 0;
        for (; i + 32 <= in; i += 32, to += stride) {
            const auto rounded = _mm512_maskz_cvtne2ps_pbh(0xffffffff, _mm512_loadu_ps(x + i + 16),
                                                           _mm512_loadu_ps(x + i));
            __m512i pairs;
            std::memcpy(&pairs, &rounded, sizeof pairs);
            _mm512_store_si512(to->words, _mm512_maskz_rol_epi32(all, pairs, 16));
        }
        for (std::int64_t p = 0; i < in; ++p, i += 2)
            to->words[p] = std::uint32_t{BFloat16(x[i]).bits} << 16 | BFloat16(x[i + 1]).bits;
    }
};

}  // namespace eyas::detail
#endif
