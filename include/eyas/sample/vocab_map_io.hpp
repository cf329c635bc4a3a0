#pragma once
#include <cstring>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "eyas/core/tensor.hpp"
#include "eyas/format/safetensors.hpp"
#include "eyas/format/torch_file.hpp"
#include "eyas/sample/vocab_map.hpp"
#include "eyas/sample/vocab_map_build.hpp"

namespace eyas {

namespace detail {

inline VocabMap vocab_map_from(const TensorView& d2t, const TensorView& t2d,
                               const std::string& where) {
    if (d2t.dtype != DType::I64 || t2d.dtype != DType::Bool || d2t.shape.rank() != 1 ||
        t2d.shape.rank() != 1)
        throw DataError("expected d2t int64 [W] and t2d bool [V], found " +
                            std::string(name_of(d2t.dtype)) + " " + d2t.shape.text() + " and " +
                            std::string(name_of(t2d.dtype)) + " " + t2d.shape.text(),
                        where, "Build the map again (eyas vocab-map)");
    VocabMap map;
    map.d2t.resize(static_cast<std::size_t>(d2t.elements()));
    map.t2d.resize(static_cast<std::size_t>(t2d.elements()));
    if (!map.d2t.empty()) std::memcpy(map.d2t.data(), d2t.data, d2t.size_bytes());
    for (std::size_t i = 0; i < map.t2d.size(); ++i)
        map.t2d[i] = t2d.data[i] != std::byte{0};  // whatever bytes a hostile file calls bool
    check_vocab_map(map, map.vocab_size(), map.draft_vocab_size(), where);
    return map;
}

inline bool is_safetensors_name(const std::filesystem::path& path) {
    return path.extension() == ".safetensors";
}

}  // namespace detail

/// Reads {d2t int64 [W], t2d bool [V]} from a torch file, or from safetensors by extension.
/// Throws DataError when a tensor is missing, of another type, or the halves disagree; whether the
/// map fits a model is check_vocab_map's question.
inline VocabMap load_vocab_map(const std::filesystem::path& path) {
    if (detail::is_safetensors_name(path)) {
        const SafetensorsFile file(path);
        return detail::vocab_map_from(file.at("d2t"), file.at("t2d"), path.string());
    }
    const TorchFile file(path);
    return detail::vocab_map_from(file.at("d2t"), file.at("t2d"), path.string());
}

/// Writes the same atomically, safetensors by extension, else the torch file that the reference
/// loads.
inline void save_vocab_map(const std::filesystem::path& path, const VocabMap& map) {
    check_vocab_map(map, map.vocab_size(), map.draft_vocab_size(), path.string());
    const NamedTensor tensors[] = {
        {"d2t",
         {reinterpret_cast<const std::byte*>(map.d2t.data()), DType::I64,
          Shape{map.draft_vocab_size()}}},
        {"t2d",
         {reinterpret_cast<const std::byte*>(map.t2d.data()), DType::Bool,
          Shape{map.vocab_size()}}},
    };
    if (detail::is_safetensors_name(path))
        write_safetensors(path, tensors);
    else
        write_torch_file(path, std::span<const NamedTensor>(tensors));
}

}  // namespace eyas
