#pragma once
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <utility>

#include "eyas/format/hf_config.hpp"
#include "eyas/format/safetensors.hpp"

namespace eyas {

/// The weights of a Hugging Face model directory: model.safetensors, or the shards that
/// model.safetensors.index.json names; and config.json beside them. Views live as long as any copy.
class HfWeights {
public:
    /// Throws DataError when a file is missing or damaged, or the index names a file outside `dir`.
    explicit HfWeights(const std::filesystem::path& dir)
        : dir_(dir), config_(read_model_config(dir / "config.json")) {
        const auto index = dir / "model.safetensors.index.json";
        if (!std::filesystem::exists(index)) {
            files_.emplace("", SafetensorsFile(dir / "model.safetensors"));
            return;
        }
        const auto map = required<std::map<std::string, std::string>>(read_json_file(index),
                                                                      "weight_map", index.string());
        for (const auto& [tensor, shard] : map) {
            if (std::filesystem::path(shard).filename() != shard || shard == "..")
                throw DataError("shard name '" + shard + "' leaves the directory", index.string(),
                                "Correct the index");
            auto it = files_.find(shard);
            if (it == files_.end()) it = files_.emplace(shard, SafetensorsFile(dir / shard)).first;
            if (!it->second.contains(tensor))
                throw DataError("shard " + shard + " lacks tensor '" + tensor + "'", index.string(),
                                "Copy the model again");
        }
    }

    bool contains(std::string_view name) const { return find(name) != nullptr; }
    TensorView at(std::string_view name) const {
        if (const auto* f = find(name)) return f->at(name);
        throw DataError("no tensor '" + std::string(name) + "'", dir_.string(),
                        "Check that this is the right model");
    }
    const ModelConfig& config() const { return config_; }
    const std::filesystem::path& path() const { return dir_; }

private:
    const SafetensorsFile* find(std::string_view name) const {
        for (const auto& [shard, file] : files_)
            if (file.contains(name)) return &file;
        return nullptr;
    }

    std::filesystem::path dir_;
    ModelConfig config_;
    std::map<std::string, SafetensorsFile> files_;
};

}  // namespace eyas
