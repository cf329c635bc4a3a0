#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "eyas/core/file.hpp"
#include "eyas/core/float8.hpp"
#include "eyas/core/running_sums.hpp"
#include "eyas/store/checked_copy.hpp"
#include "eyas/store/pack_index.hpp"

namespace eyas::detail {

/// States of a packed sample that lie in float8 with scales.
struct ScaledFeature {
    const MappedFile& file;
    std::uint64_t data_at;  // where the file's data section begins, to which ranges refer
    const PackedFeature& feature;
    std::string name;  // for messages
    bool verify;

    /// The bytes of a part of a range, read into `memory` where the mapping must not be touched.
    TensorView part(const PackedRange& range, std::uint64_t from, DType dtype, const Shape& shape,
                    Tensor& memory) const {
        const MappableFile place{file.descriptor(), file.bytes(), file.on_network()};
        return readable(place, {file.bytes().data() + data_at + range.offset + from, dtype, shape},
                        memory);
    }

    void require(const RunningSums& sums, const PackedRange& range, const char* which) const {
        if (verify && sums.xxh3() != range.checksum)
            throw DataError("checksum of '" + name + which +
                                "' differs: its bytes changed after they were packed",
                            file.path().string(), "Pack the samples again; check the disk");
    }
};

/// Decodes all rows into memory of their own dtype, aligned for it, and compares the checksums of
/// what they lie in on the way. Block by block, so that little of the file is in this process at a
/// time. Throws DataError where a checksum differs.
inline void decode_scaled(const ScaledFeature& s, std::span<std::byte> to) {
    constexpr std::int64_t block_bytes = std::int64_t{1} << 20;
    const auto& f = s.feature;
    const auto rows = f.scale_shape()[0], groups = f.scale_shape()[1];
    const auto width = rows ? f.shape.elements() / rows : 0;
    Tensor memory;
    const auto scales = s.part(f.scales, 0, DType::F32, f.scale_shape(), memory);
    RunningSums scale_sums(s.verify), code_sums(s.verify);
    scale_sums(scales.bytes());
    s.require(scale_sums, f.scales, ".scale");
    const auto step = std::max<std::int64_t>(block_bytes / std::max<std::int64_t>(width, 1), 1);
    for (std::int64_t row = 0; row < rows; row += step) {
        const auto n = std::min(step, rows - row);
        Tensor read;
        const auto codes = s.part(f.data, static_cast<std::uint64_t>(row * width), DType::F8E4M3,
                                  {n, width}, read);
        code_sums(codes.bytes());
        decode_e4m3(codes,
                    {scales.data + static_cast<std::size_t>(row * groups) * sizeof(float),
                     DType::F32,
                     {n, groups}},
                    {to.data() + static_cast<std::size_t>(row * width) * size_of(f.dtype),
                     f.dtype,
                     {n, width}});
        if (!s.file.on_network()) let_pages_go(codes.bytes(), s.file.bytes());
    }
    s.require(code_sums, f.data, "");
}

}  // namespace eyas::detail
