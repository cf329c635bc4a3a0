#pragma once
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "eyas/format/hf_config.hpp"
#include "eyas/format/safetensors.hpp"

namespace eyas {

/// The weights of a Hugging Face model directory: model.safetensors, or the shards that
/// model.safetensors.index.json names; and config.json beside them. Views live as long as any copy.
class HfWeights {
public:
    /// Throws DataError when a file is missing or damaged, the index names a file outside `dir`, or
    /// two shards hold tensors of one name.
    explicit HfWeights(const std::filesystem::path& dir)
        : dir_(dir), config_(read_model_config(dir / "config.json")) {
        const auto index = dir / "model.safetensors.index.json";
        if (!std::filesystem::exists(index)) {
            open("", dir / "model.safetensors");
            return;
        }
        const auto map = required<std::map<std::string, std::string>>(read_json_file(index),
                                                                      "weight_map", index.string());
        for (const auto& [tensor, shard] : map) {
            if (std::filesystem::path(shard).filename() != shard || shard == "..")
                throw DataError("shard name '" + shard + "' leaves the directory", index.string(),
                                "Correct the index");
            if (!files_.contains(shard)) open(shard, dir / shard);
            if (!files_.at(shard).contains(tensor))
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
    /// Of all tensors in the files, ascending.
    std::vector<std::string> names() const {
        std::vector<std::string> all;
        for (const auto& [name, shard] : shard_of_) all.push_back(name);
        return all;
    }
    const ModelConfig& config() const { return config_; }
    const std::filesystem::path& path() const { return dir_; }

private:
    void open(const std::string& shard, const std::filesystem::path& path) {
        const auto& file = files_.emplace(shard, SafetensorsFile(path)).first->second;
        for (const auto& t : file.tensors()) {
            const auto [at, fresh] = shard_of_.emplace(t.name, shard);
            if (!fresh)
                throw DataError("tensor '" + t.name + "' is in " + at->second + " too",
                                path.string(), "Copy the model again");
        }
    }

    const SafetensorsFile* find(std::string_view name) const {
        const auto it = shard_of_.find(name);
        return it == shard_of_.end() ? nullptr : &files_.at(it->second);
    }

    std::filesystem::path dir_;
    ModelConfig config_;
    std::map<std::string, SafetensorsFile> files_;              // by shard
    std::map<std::string, std::string, std::less<>> shard_of_;  // by tensor
};

}  // namespace eyas
