#pragma once
#include <algorithm>
#include <cstring>
#include <filesystem>
#include <iterator>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "eyas/checkpoint/config_json.hpp"
#include "eyas/checkpoint/draft_weights.hpp"
#include "eyas/checkpoint/state.hpp"
#include "eyas/core/convert.hpp"
#include "eyas/format/safetensors.hpp"
#include "eyas/model/concept.hpp"
#include "eyas/sample/vocab_map.hpp"

namespace eyas {

// A checkpoint is RUN/checkpoint-{step}/ with
//   model.safetensors      d2t [W] int64, the trainable parameters and t2d [V] bool, under the
//                          reference's names, in the model's precision: all a user needs to load
//   optimizer.safetensors  masters and moments, float32
//   config.json            the draft's config
//   state.json             step, loader position, identity, checksums (checkpoint/state.hpp)
// It is written under another name, synced, and renamed: a kill at any time leaves the earlier
// checkpoints as they were.

/// What a checkpoint consists of, as views into a live model and optimizer. The views must stay
/// valid during the call; restore_checkpoint writes through them.
struct CheckpointContent {
    std::span<const Parameter> parameters;
    const VocabMap& vocab_map;
    const ModelConfig& config;
    std::vector<NamedBuffer> optimizer;  // AdamW::state()

    /// Which parameter's value lies where v does, as an fp32 model's masters do; the number of
    /// parameters for none.
    std::size_t parameter_at(const TensorView& v) const {
        const auto same = [&](const Parameter& p) {
            return p.value.data == v.data && p.value.size_bytes() == v.size_bytes();
        };
        return static_cast<std::size_t>(std::ranges::find_if(parameters, same) -
                                        parameters.begin());
    }
};

/// Where the elements [begin, begin + n) of a checkpoint's tensor of shape `whole` go: `part` holds
/// n of that tensor's type.
struct TensorSlice {
    std::string name;
    Shape whole;
    std::size_t begin = 0;
    MutableTensorView part;
};

/// d2t, the parameters and t2d, under the names of the reference's state dict. Wide elements come
/// first, so that every tensor of a file in this order is aligned for its type.
inline std::vector<NamedTensor> draft_tensors(std::span<const Parameter> parameters,
                                              const VocabMap& map) {
    std::vector<NamedTensor> all;
    all.push_back({"d2t",
                   {reinterpret_cast<const std::byte*>(map.d2t.data()), DType::I64,
                    Shape{map.draft_vocab_size()}}});
    for (const auto& p : parameters) all.push_back({p.name, p.value});
    all.push_back({"t2d",
                   {reinterpret_cast<const std::byte*>(map.t2d.data()), DType::Bool,
                    Shape{map.vocab_size()}}});
    return all;
}

/// Writes RUN/checkpoint-{state.step} and keeps the newest `keep` (0: all). Returns its path.
/// Throws ResourceError when the disk or its permissions refuse; the others are then untouched.
inline std::filesystem::path save_checkpoint(const std::filesystem::path& run_dir,
                                             const CheckpointContent& content,
                                             const CheckpointState& state, std::int64_t keep = 0) {
    AtomicDirectory dir(run_dir,
                        std::string(detail::checkpoint_prefix) + std::to_string(state.step));
    write_safetensors(dir.path() / "model.safetensors",
                      draft_tensors(content.parameters, content.vocab_map), {{"format", "pt"}});
    std::vector<NamedTensor> optimizer;
    for (const auto& b : content.optimizer) optimizer.push_back({b.name, b.buffer});
    write_safetensors(dir.path() / "optimizer.safetensors", optimizer, {{"format", "pt"}});
    write_text_file(dir.path() / "config.json", config_json(content.config).dump(2) + "\n");
    write_checkpoint_state(dir.path(), state,
                           {"config.json", "model.safetensors", "optimizer.safetensors"});
    auto path = dir.commit();
    rotate_checkpoints(run_dir, keep, path);
    return path;
}

namespace detail {
inline std::vector<TensorSlice> whole_slices(std::span<const NamedBuffer> buffers) {
    std::vector<TensorSlice> all;
    for (const auto& b : buffers) all.push_back({b.name, b.buffer.shape, 0, b.buffer});
    return all;
}

/// Every slice has a tensor of its name, type and whole shape in the file. Throws DataError.
inline void check_fits(const SafetensorsFile& file, std::span<const TensorSlice> slices) {
    for (const auto& s : slices) {
        const auto t = file.at(s.name);
        if (t.dtype != s.part.dtype || !(t.shape == s.whole))
            throw DataError("tensor is " + std::string(name_of(t.dtype)) + " " + t.shape.text() +
                                ", the model has " + std::string(name_of(s.part.dtype)) + " " +
                                s.whole.text(),
                            file.path().string() + ": " + s.name,
                            "Use the checkpoint's own config and precision");
    }
}

inline void copy_slices(const SafetensorsFile& file, std::span<const TensorSlice> slices) {
    for (const auto& s : slices)
        std::ranges::copy(
            file.at(s.name).bytes().subspan(s.begin * size_of(s.part.dtype), s.part.size_bytes()),
            s.part.data);
}

inline std::vector<NamedBuffer> value_buffers(std::span<const Parameter> parameters) {
    std::vector<NamedBuffer> all;
    for (const auto& p : parameters) all.push_back({p.name, p.value});
    return all;
}

inline void check_same_vocab_map(const SafetensorsFile& file, const VocabMap& map) {
    for (const auto& mine : draft_tensors({}, map)) {
        const auto saved = file.at(mine.name);
        if (saved.dtype != mine.tensor.dtype || !(saved.shape == mine.tensor.shape) ||
            !std::ranges::equal(saved.bytes(), mine.tensor.bytes()))
            throw ContractError("the vocabulary map is another one",
                                file.path().string() + ": " + mine.name,
                                "Train with the map that the checkpoint was written with");
    }
}
}  // namespace detail

/// Reads a checkpoint into the live model and optimizer that `content` views, bit for bit, and
/// returns the rest (the caller sets AdamW's step count and seeks its loader).
/// Everything is checked before the first byte changes. Throws DataError for a damaged checkpoint
/// or one of other shapes, ContractError that names the field in which `identity` differs.
/// `slices`: parts of the optimizer's tensors to be read besides content.optimizer.
inline CheckpointState restore_checkpoint(const std::filesystem::path& dir,
                                          const CheckpointContent& content, const Json& identity,
                                          std::vector<TensorSlice> slices = {}) {
    auto state = read_checkpoint_state(dir);
    if (const auto d = first_difference(state.identity, identity))
        throw ContractError("the checkpoint was written with other options: " + *d, dir.string(),
                            "Resume with the same options, or start in a new run directory");
    const SafetensorsFile model(dir / "model.safetensors");
    const SafetensorsFile optimizer(dir / "optimizer.safetensors");
    const auto values = detail::whole_slices(detail::value_buffers(content.parameters));
    std::ranges::move(detail::whole_slices(content.optimizer), std::back_inserter(slices));
    detail::check_same_vocab_map(model, content.vocab_map);
    detail::check_fits(model, values);
    detail::check_fits(optimizer, slices);
    detail::copy_slices(model, values);
    detail::copy_slices(optimizer, slices);
    return state;
}

namespace detail {
inline void require_weight(const TensorView& have, const Parameter& p, const std::string& where) {
    if (!(have.shape == p.value.shape))
        throw DataError("shape " + have.shape.text() + ", the model has " + p.value.shape.text(),
                        where + ": " + p.name, "Use the draft's own config");
    if (have.dtype != DType::F32 && have.dtype != DType::BF16 && have.dtype != DType::F16)
        throw DataError("dtype " + std::string(name_of(have.dtype)), where + ": " + p.name,
                        "Store weights as float32, bfloat16 or float16");
}
}  // namespace detail

/// Only the weights, of a checkpoint, an export or another program's draft (DraftWeights),
/// converted to the model's precision. Everything is checked before the first byte changes. Throws
/// ContractError where the vocabulary map is not the model's, DataError for weights that are
/// missing, misshapen, or that the model has no place for.
inline void load_weights(const std::filesystem::path& path, std::span<const Parameter> parameters,
                         const VocabMap& map) {
    const DraftWeights file(path);
    const auto where = file.path().string();
    const auto theirs = file.vocab_map(map.vocab_size(), map.draft_vocab_size());
    if (theirs.d2t != map.d2t || theirs.t2d != map.t2d)
        throw ContractError("the vocabulary map is another one", where + ": d2t",
                            "Train with the map that the draft was trained with");
    for (const auto& p : parameters) detail::require_weight(file.at(p.name), p, where);
    for (const auto& [name, unused] : file.tensors())
        if (std::ranges::find(parameters, name, &Parameter::name) == parameters.end())
            throw DataError("the model has no place for tensor '" + name + "'", where,
                            "Use the config of this draft");
    for (const auto& p : parameters) convert_into(file.at(p.name), p.value);
}

}  // namespace eyas
