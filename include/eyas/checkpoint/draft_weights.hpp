#pragma once
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "eyas/core/bfloat16.hpp"
#include "eyas/core/convert.hpp"
#include "eyas/format/safetensors.hpp"
#include "eyas/format/torch_file.hpp"
#include "eyas/sample/vocab_map_build.hpp"

namespace eyas {

namespace detail {
/// A tensor's name in training, from the names that other programs write: "model.layers.0.mlp…" of
/// vLLM and its kin is "midlayer.mlp…".
inline std::string training_name(std::string_view name) {
    constexpr std::array<std::string_view, 3> around = {"module.", "draft_model.", "model."};
    for (bool again = true; again;) {
        again = false;
        for (const auto prefix : around)
            if (name.starts_with(prefix)) name.remove_prefix(prefix.size()), again = true;
    }
    constexpr std::string_view layer = "layers.0.";
    if (name.starts_with(layer)) return "midlayer." + std::string(name.substr(layer.size()));
    if (name == "draft_id_to_target_id") return "d2t";
    return std::string(name);
}

/// Target ids by draft id from a d2t of offsets, or of ids themselves; nothing where that makes no
/// ascending ids of [0, vocab_size).
inline std::optional<std::vector<std::int64_t>> target_ids(std::span<const std::int64_t> d2t,
                                                           bool offsets, std::int64_t vocab_size) {
    std::vector<std::int64_t> ids;
    ids.reserve(d2t.size());
    for (std::size_t d = 0; d < d2t.size(); ++d) {
        if (d2t[d] < 0 || d2t[d] >= vocab_size) return std::nullopt;
        const auto id = d2t[d] + (offsets ? static_cast<std::int64_t>(d) : 0);
        if (id >= vocab_size || (d > 0 && id <= ids.back())) return std::nullopt;
        ids.push_back(id);
    }
    return ids;
}
}  // namespace detail

/// The weights of an EAGLE3 draft under their names in training, from model.safetensors or
/// pytorch_model.bin (or any file of these formats): a checkpoint's, an export's, or another
/// program's. Nothing in the file is run. Views live as long as any copy. Thread-safe once opened.
class DraftWeights {
public:
    static constexpr std::array<const char*, 2> file_names = {"model.safetensors",
                                                              "pytorch_model.bin"};

    /// The file of a directory, else the path itself.
    static std::filesystem::path file_of(const std::filesystem::path& path) {
        if (!std::filesystem::is_directory(path)) return path;
        for (const char* name : file_names)
            if (std::filesystem::exists(path / name)) return path / name;
        throw DataError("neither model.safetensors nor pytorch_model.bin is here", path.string(),
                        "Name a draft's directory");
    }

    /// Throws DataError for a file that is damaged or where two tensors have one name in training.
    explicit DraftWeights(const std::filesystem::path& path) : path_(file_of(path)) {
        if (path_.extension() == ".safetensors")
            adopt(file_.emplace<SafetensorsFile>(path_).tensors());
        else
            adopt(file_.emplace<TorchFile>(path_).tensors());
    }

    const std::filesystem::path& path() const { return path_; }
    /// All but the vocabulary map and the embedding.
    const std::map<std::string, TensorView>& tensors() const { return weights_; }
    /// [V, D] where the file has it: the target's, which draws no gradient.
    const std::optional<TensorView>& embedding() const { return embedding_; }

    /// Throws DataError that names the file when there is no such tensor.
    TensorView at(const std::string& name) const {
        const auto it = weights_.find(name);
        if (it == weights_.end())
            throw DataError("no tensor '" + name + "'", path_.string(),
                            "Check that this is an EAGLE3 draft of this config");
        return it->second;
    }

    /// The map of a draft that speaks W of V tokens. d2t may hold offsets (draft id to target id,
    /// as training has them) or target ids, of any integer type; t2d may be absent; both may be
    /// where W is V. Throws DataError for tensors that make no map of these sizes, and where t2d is
    /// absent and d2t could be either.
    VocabMap vocab_map(std::int64_t vocab_size, std::int64_t draft_vocab_size) const {
        detail::check_vocab_sizes(vocab_size, draft_vocab_size, path_.string());
        if (!d2t_ && draft_vocab_size == vocab_size) return identity_vocab_map(vocab_size);
        const auto d2t = integers("d2t", d2t_, draft_vocab_size);
        const auto offsets = detail::target_ids(d2t, true, vocab_size),
                   plain = detail::target_ids(d2t, false, vocab_size);
        const auto map = [&](const auto& ids) {
            return detail::map_of_sorted_ids(*ids, vocab_size);
        };
        if (t2d_) {
            const auto said = flags(vocab_size);
            if (plain && map(plain).t2d == said) return map(plain);
            VocabMap own{d2t, said};
            check_vocab_map(own, vocab_size, draft_vocab_size, path_.string());
            return own;
        }
        if (!offsets && !plain)
            throw DataError(
                "d2t leads to no ascending ids of a vocabulary of " + std::to_string(vocab_size),
                path_.string(), "Use the config of this draft");
        if (offsets && plain && *offsets != *plain)
            throw DataError(
                "d2t may hold offsets or target ids, and t2d, which would tell, is absent",
                path_.string(), "Add t2d");
        return map(offsets ? offsets : plain);
    }

private:
    void adopt(const std::vector<NamedTensor>& tensors) {
        for (const auto& t : tensors) {
            const auto name = detail::training_name(t.name);
            if (name.ends_with("rotary_emb.inv_freq")) continue;  // no weights
            const auto keep = [&](std::optional<TensorView>& to) {
                if (std::exchange(to, t.tensor)) twice(name);
            };
            if (name == "d2t")
                keep(d2t_);
            else if (name == "t2d")
                keep(t2d_);
            else if (name == "embed_tokens.weight")
                keep(embedding_);
            else if (!weights_.emplace(name, t.tensor).second)
                twice(name);
        }
    }
    [[noreturn]] void twice(const std::string& name) const {
        throw DataError("two tensors stand for '" + name + "'", path_.string(),
                        "Remove one of them");
    }

    std::vector<std::int64_t> integers(const char* name, const std::optional<TensorView>& t,
                                       std::int64_t count) const {
        if (!t || !(t->shape == Shape{count}) || (t->dtype != DType::I64 && t->dtype != DType::I32))
            throw DataError(
                std::string(name) + " is " +
                    (t ? std::string(name_of(t->dtype)) + " " + t->shape.text() : "absent") +
                    ", the draft has a vocabulary of " + std::to_string(count),
                path_.string(), "Use the config of this draft");
        if (t->dtype == DType::I32) {
            const auto v = t->as<std::int32_t>();
            return {v.begin(), v.end()};
        }
        const auto v = t->as<std::int64_t>();
        return {v.begin(), v.end()};
    }

    std::vector<std::uint8_t> flags(std::int64_t count) const {
        if (!(t2d_->shape == Shape{count}) ||
            (t2d_->dtype != DType::Bool && t2d_->dtype != DType::U8))
            throw DataError("t2d is " + std::string(name_of(t2d_->dtype)) + " " +
                                t2d_->shape.text() + ", the target has a vocabulary of " +
                                std::to_string(count),
                            path_.string(), "Use the config of this draft");
        std::vector<std::uint8_t> all;
        for (const auto b : t2d_->bytes()) all.push_back(b != std::byte{0});
        return all;
    }

    std::filesystem::path path_;
    std::variant<std::monostate, SafetensorsFile, TorchFile> file_;
    std::map<std::string, TensorView> weights_;
    std::optional<TensorView> d2t_, t2d_, embedding_;
};

/// Throws ContractError unless the embedding in a draft's file, where it has one, is the target's
/// [V, D]: then it would be computed with another one here. Where one of the two is stored in
/// bfloat16 or float16, what is left of both in that type is compared.
inline void require_target_embedding(const DraftWeights& draft, const TensorView& target) {
    const auto& own = draft.embedding();
    if (!own) return;
    const auto where = draft.path().string() + ": embed_tokens.weight";
    const char* remedy = "Name the target that this draft was trained for";
    if (!(own->shape == target.shape))
        throw ContractError(
            "the embedding is " + own->shape.text() + ", the target's " + target.shape.text(),
            where, remedy);
    if (own->dtype == target.dtype && std::ranges::equal(own->bytes(), target.bytes())) return;
    const auto n = own->elements(), width = own->shape[1];
    const bool half = own->dtype == DType::F16 || target.dtype == DType::F16;
    const bool wide = own->dtype == target.dtype;
    Tensor a(DType::F32, own->shape), b(DType::F32, own->shape);
    convert_into(*own, a.mutable_view()), convert_into(target, b.mutable_view());
    const auto x = a.as<float>(), y = b.as<float>();
    for (std::size_t i = 0; i < static_cast<std::size_t>(n); ++i) {
        constexpr float half_step = 0x1p-25f;  // what float16 rounds numbers near zero by
        const bool same = x[i] == y[i] || (!wide && BFloat16(x[i]) == BFloat16(y[i])) ||
                          (half && std::abs(x[i] - y[i]) <= half_step);
        if (!same)
            throw ContractError("the embedding is not the target's, first at token " +
                                    std::to_string(static_cast<std::int64_t>(i) / width),
                                where, remedy);
    }
}

}  // namespace eyas
