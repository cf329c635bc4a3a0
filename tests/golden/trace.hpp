#pragma once
#include <algorithm>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "eyas/core/json.hpp"
#include "eyas/format/safetensors.hpp"
#include "eyas/model/eagle3.hpp"

namespace eyas::golden {

/// One reference trace: <case>.json and <case>.safetensors, as tests/goldens/README.md describes.
class Trace {
public:
    explicit Trace(const std::filesystem::path& json_file)
        : json_(read_json_file(json_file)),
          tensors_(std::filesystem::path(json_file).replace_extension(".safetensors")),
          config_(parse_model_config(json_.at("draft_config"), json_file.string())) {}

    const Json& json() const { return json_; }
    std::string name() const { return json_.at("case"); }
    const ModelConfig& config() const { return config_; }
    bool bf16() const { return json_.at("training").at("dtype") == "bfloat16"; }
    bool has(const std::string& tensor) const { return tensors_.contains(tensor); }
    TensorView at(const std::string& tensor) const { return tensors_.at(tensor); }
    std::size_t batches() const { return json_.at("num_batches"); }

    /// Of the models of all traces.
    inline static bool replay_steps = false;
    Eagle3Options options() const {
        const auto& t = json_.at("training");
        Eagle3Options o;
        o.replay_steps = replay_steps;
        o.ttt_length = t.at("ttt_length");
        o.loss_decay = t.at("ploss_decay");
        o.kl_scale = t.at("kl_scale");
        o.kl_decay = t.at("kl_decay");
        if (!t.at("lk_loss_type").is_null()) o.loss = loss_type_from_name(t.at("lk_loss_type"));
        return o;
    }

    VocabMap vocab_map() const {
        VocabMap m;
        const auto d2t = at("init.d2t").as<std::int64_t>();
        m.d2t.assign(d2t.begin(), d2t.end());
        for (bool b : at("init.t2d").as<bool>()) m.t2d.push_back(b ? 1 : 0);
        return m;
    }

    FrozenTarget target() const {
        return {at("init.embed_tokens.weight"), at("target.lm_head.weight")};
    }

    Batch batch(std::size_t k) const {
        const std::string p = "batch" + std::to_string(k) + ".";
        Batch b{at(p + "input_ids"),    at(p + "attention_mask"), at(p + "loss_mask"),
                at(p + "hidden_state"), at(p + "target"),         {},
                {p + "of " + name()}};
        if (has(p + "position_ids")) b.position_ids = at(p + "position_ids");
        return b;
    }

    /// A model with the trace's initial weights.
    template <class Model>
    std::unique_ptr<Model> model() const {
        auto m = std::make_unique<Model>(config_, options(), vocab_map(), target(), 0);
        for (const auto& p : m->parameters()) {
            Tensor initial(p.value.dtype, p.value.shape);
            convert_into(at("init." + p.name), initial.mutable_view());
            m->device().upload(initial.view().data, p.value.data, p.value.size_bytes());
        }
        return m;
    }

    /// The values of a tensor of any float type.
    std::vector<double> numbers(const std::string& tensor) const { return numbers_of(at(tensor)); }

    static std::vector<double> numbers_of(const TensorView& v) {
        std::vector<double> out;
        if (v.dtype == DType::F64)
            for (double x : v.as<double>()) out.push_back(x);
        else if (v.dtype == DType::F32)
            for (float x : v.as<float>()) out.push_back(x);
        else if (v.dtype == DType::BF16)
            for (BFloat16 x : v.as<BFloat16>()) out.push_back(static_cast<float>(x));
        else
            for (auto x : v.as<std::int64_t>()) out.push_back(static_cast<double>(x));
        return out;
    }

private:
    Json json_;
    SafetensorsFile tensors_;
    ModelConfig config_;
};

}  // namespace eyas::golden
