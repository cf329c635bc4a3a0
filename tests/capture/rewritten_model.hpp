#pragma once
#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "eyas/core/file.hpp"
#include "eyas/core/float16.hpp"
#include "eyas/format/hf_weights.hpp"

namespace eyas::test {

/// A copy of a model that a test changes and writes to another directory, as one file.
struct RewrittenModel {
    Json config;
    std::map<std::string, Tensor> tensors;

    explicit RewrittenModel(const HfWeights& from) : config(from.config().source) {
        for (const auto& name : from.names()) tensors.emplace(name, Tensor::copy_of(from.at(name)));
    }

    /// Sets all elements of the float tensors whose names end so to 0 or 1; says how many there
    /// are.
    std::int64_t fill(std::string_view ending, double value) {
        std::int64_t count = 0;
        for (auto& [name, t] : tensors) {
            if (!name.ends_with(ending)) continue;
            ++count;
            if (t.dtype() == DType::F32)
                std::ranges::fill(t.as<float>(), static_cast<float>(value));
            if (t.dtype() == DType::BF16)
                std::ranges::fill(t.as<BFloat16>(), BFloat16(static_cast<float>(value)));
            if (t.dtype() == DType::F16)
                std::ranges::fill(t.as<Float16>(), Float16(value == 0 ? 0 : 0x3c00));
        }
        return count;
    }

    void write(const std::filesystem::path& dir) const {
        eyas::create_directories(dir);
        write_text_file(dir / "config.json", config.dump());
        std::vector<NamedTensor> all;
        for (const auto& [name, t] : tensors) all.push_back({name, t.view()});
        write_safetensors(dir / "model.safetensors", all, {}, {.durable = false});
    }
};

}  // namespace eyas::test
