#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "eyas/checkpoint/checkpoint.hpp"
#include "eyas/checkpoint/reference_optimizer.hpp"
#include "eyas/core/file_name.hpp"
#include "eyas/format/torch_file.hpp"

namespace eyas {

// SpecForge's training checkpoint (its training/checkpoint.py): {run_id}-step{N}/ with
// training_state.pt (draft_state_dict and counters) and training_state_rank{r}.pt (optimizer and
// random states), and a link {run_id}-latest beside it.
// Not carried over: random states (its EAGLE3 step draws nothing) and the provenance hashes that
// its command line records of target and vocabulary; its library calls do not ask for them.

namespace detail {
inline AdamWOptions adamw_from_json(const Json& j, const std::string& where) {
    return {.beta1 = required<double>(j, "beta1", where),
            .beta2 = required<double>(j, "beta2", where),
            .epsilon = required<double>(j, "epsilon", where),
            .weight_decay = required<double>(j, "weight_decay", where)};
}

inline ScheduleOptions schedule_from_json(const Json& j, const std::string& where) {
    return {.kind = schedule_from_name(required<std::string>(j, "kind", where)),
            .base_rate = required<double>(j, "base_rate", where),
            .total_steps = required<std::int64_t>(j, "total_steps", where),
            .warmup_ratio = required<double>(j, "warmup_ratio", where),
            .decay_ratio = required<double>(j, "decay_ratio", where)};
}

/// The shared payload: weights, counters, and what the reference compares on a resume as far as the
/// checkpoint knows it.
inline PickleDict reference_shared_state(const SafetensorsFile& model, const CheckpointState& s,
                                         const std::string& run_id, const std::string& where) {
    PickleDict draft;
    for (const char* first : {"t2d", "d2t"}) draft.set(first, model.at(first));
    for (const auto& t : model.tensors())
        if (t.name != "t2d" && t.name != "d2t") draft.set(t.name, t.tensor);
    const auto data = s.identity.value(Json::json_pointer("/run/data"), Json::object());
    const auto batch_size = optional<std::int64_t>(data, "batch_size", 0, where);
    if (s.batch > 0 && batch_size <= 0)
        throw ContractError(
            "identity.run.data.batch_size is not recorded, and the run stopped in "
            "the middle of an epoch",
            where, "Train through Pipeline, which records it");
    if (s.batch > 0 && data.contains("pack_tokens"))
        throw ContractError(
            "samples are packed, which the reference does not do, and the run stopped in the "
            "middle of an epoch",
            where, "Write a checkpoint of the end of an epoch");
    if (s.batch > 0 && data.contains("pad_to_multiple_of"))
        throw ContractError(
            "rows are padded to a multiple, which the reference does not do, and the run stopped "
            "in the middle of an epoch",
            where, "Write a checkpoint of the end of an epoch");
    PickleDict d;
    d.set("draft_state_dict", std::move(draft));
    d.set("global_step", s.step);
    d.set("epoch", s.epoch);
    d.set("epoch_batch", s.batch);
    d.set("epoch_samples", s.batch * batch_size);
    d.set("strategy", std::string("eagle3"));
    d.set("run_id", run_id);
    d.set("world_size", required<std::int64_t>(s.identity, "world_size", where));
    d.set("accumulation_steps", required<std::int64_t>(s.identity, "accumulation", where));
    if (batch_size > 0) d.set("batch_size", batch_size);
    if (data.contains("samples"))
        d.set("dataset_size", required<std::int64_t>(data, "samples", where));
    return d;
}

/// Points `link` at `target` (relative), over an older link.
inline void point_link(const std::filesystem::path& link, const std::filesystem::path& target) {
    auto fresh = link;
    fresh += ".tmp";
    std::error_code e;
    std::filesystem::remove(fresh, e);
    std::filesystem::create_directory_symlink(target, fresh, e);
    if (e) throw ResourceError("cannot link: " + e.message(), fresh.string(), "Check permissions");
    rename_path(fresh, link);
}
}  // namespace detail

/// Writes a checkpoint of ours as the reference's, under `out_dir`; returns {run_id}-step{N}.
/// Throws DataError for a damaged checkpoint, ContractError for a run_id that is no file name and
/// for a schedule that the reference does not have.
inline std::filesystem::path write_reference_checkpoint(const std::filesystem::path& out_dir,
                                                        const std::filesystem::path& checkpoint,
                                                        const std::string& run_id = "eyas") {
    const auto where = (checkpoint / detail::state_file).string();
    if (encode_file_name(run_id) != run_id)
        throw ContractError("run id '" + run_id + "' is no file name", "write_reference_checkpoint",
                            "Use letters, digits, - and _");
    const auto state = read_checkpoint_state(checkpoint);
    const SafetensorsFile model(checkpoint / "model.safetensors");
    const SafetensorsFile optimizer(checkpoint / "optimizer.safetensors");
    std::vector<std::string> names;
    for (const auto& t : model.tensors())
        if (t.name != "t2d" && t.name != "d2t") names.push_back(t.name);
    const auto schedule =
        detail::schedule_from_json(required<Json>(state.identity, "schedule", where), where);
    detail::ReferenceOptimizer adam(
        optimizer, names,
        detail::adamw_from_json(required<Json>(state.identity, "adamw", where), where), schedule,
        required<double>(state.identity, "max_grad_norm", where), state.optimizer_step);
    auto shared = detail::reference_shared_state(model, state, run_id, where);
    shared.set("effective_total_steps", schedule.total_steps);
    const auto world = required<std::int64_t>(state.identity, "world_size", where);
    PickleDict rank;
    rank.set("optimizer", world == 1 ? adam.state() : PickleValue());
    rank.set("rng", PickleValue());
    if (world > 1) shared.set("replicated_optimizer_state", adam.state());

    const auto name = run_id + "-step" + std::to_string(state.step);
    AtomicDirectory dir(out_dir, name);
    write_torch_file(dir.path() / "training_state.pt", PickleValue(std::move(shared)));
    const PickleValue rank_state(std::move(rank));
    for (std::int64_t r = 0; r < world; ++r)
        write_torch_file(dir.path() / ("training_state_rank" + std::to_string(r) + ".pt"),
                         rank_state);
    auto path = dir.commit();
    detail::point_link(out_dir / (run_id + "-latest"), name);
    return path;
}

/// The counters of a reference checkpoint.
struct ReferenceState {
    std::int64_t global_step = 0, epoch = 0, epoch_batch = 0, epoch_samples = 0, world_size = 1;
    std::string strategy, run_id;
    bool has_optimizer = false;  // masters and moments were there and were loaded
};

namespace detail {
inline void take_reference_tensor(const PickleValue& value, const MutableTensorView& to,
                                  const std::string& where) {
    const auto& t = value.require<TensorView>(where);
    if (!(t.shape == to.shape))
        throw DataError("shape " + t.shape.text() + ", the model has " + to.shape.text(), where,
                        "Use the draft's own config");
    convert_into(t, to);
}

inline const PickleValue* find_index(const PickleDict& d, std::int64_t index) {
    for (const auto& [key, value] : d.items)
        if (const auto* k = key.as<std::int64_t>(); k && *k == index) return &value;
    return nullptr;
}

/// Masters by position, moments by index; moments that are absent become zero, as in torch.
inline void take_reference_optimizer(const PickleValue& optimizer, const CheckpointContent& content,
                                     const std::string& where) {
    const auto& masters = optimizer.at("fp32_params", where).require<PickleList>(where);
    if (masters.size() != content.parameters.size())
        throw DataError(std::to_string(masters.size()) + " masters for " +
                            std::to_string(content.parameters.size()) + " parameters",
                        where, "Use the draft's own config");
    const auto& moments =
        optimizer.at("optimizer_state_dict", where).at("state", where).require<PickleDict>(where);
    for (std::size_t i = 0; i < masters.size(); ++i) {
        const auto& name = content.parameters[i].name;
        const auto* state = find_index(moments, static_cast<std::int64_t>(i));
        for (const auto& buffer : content.optimizer) {
            const auto at = where + ": " + buffer.name;
            if (buffer.name == "master." + name)
                take_reference_tensor(masters[i], buffer.buffer, at);
            for (const char* moment : {"exp_avg", "exp_avg_sq"}) {
                if (buffer.name != std::string(moment) + "." + name) continue;
                if (state)
                    take_reference_tensor(state->at(moment, at), buffer.buffer, at);
                else
                    std::ranges::fill(buffer.buffer.as<float>(), 0.f);
            }
        }
    }
}
}  // namespace detail

/// Reads a reference checkpoint directory ({run_id}-step{N} or {run_id}-latest) into the live model
/// and, where rank 0's file is there, optimizer that `content` views. The caller sets AdamW's step
/// count to global_step, or calls reset_masters() where has_optimizer is false. Throws DataError
/// for missing keys and other shapes, ContractError for another vocabulary map; the model may then
/// be partly loaded.
inline ReferenceState read_reference_checkpoint(const std::filesystem::path& dir,
                                                const CheckpointContent& content) {
    const auto path = dir / "training_state.pt";
    const auto where = path.string();
    const TorchFile shared(path);
    const auto& root = shared.root();
    const auto integer = [&](const char* key) {
        return root.at(key, where).require<std::int64_t>(where + ": " + key);
    };
    ReferenceState s;
    s.global_step = integer("global_step");
    s.epoch = integer("epoch");
    s.epoch_batch = integer("epoch_batch");
    s.epoch_samples = integer("epoch_samples");
    s.world_size = integer("world_size");
    s.strategy = root.at("strategy", where).require<std::string>(where + ": strategy");
    s.run_id = root.at("run_id", where).require<std::string>(where + ": run_id");
    const auto& draft = root.at("draft_state_dict", where);
    for (const auto& mine : draft_tensors({}, content.vocab_map)) {
        const auto saved = draft.at(mine.name, where).require<TensorView>(where + ": " + mine.name);
        if (!std::ranges::equal(saved.bytes(), mine.tensor.bytes()))
            throw ContractError("the vocabulary map is another one", where + ": " + mine.name,
                                "Use the map that the checkpoint was written with");
    }
    for (const auto& p : content.parameters)
        detail::take_reference_tensor(draft.at(p.name, where), p.value, where + ": " + p.name);
    const auto rank_path = dir / "training_state_rank0.pt";
    if (!std::filesystem::exists(rank_path)) return s;
    const TorchFile rank(rank_path);
    const auto* optimizer = &rank.root().at("optimizer", rank_path.string());
    if (optimizer->as<std::monostate>()) optimizer = &root.at("replicated_optimizer_state", where);
    detail::take_reference_optimizer(*optimizer, content, rank_path.string());
    s.has_optimizer = true;
    return s;
}

}  // namespace eyas
