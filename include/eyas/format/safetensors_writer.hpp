#pragma once
#include <filesystem>
#include <map>
#include <set>
#include <span>
#include <string>

#include "eyas/core/file.hpp"
#include "eyas/core/json.hpp"
#include "eyas/core/tensor.hpp"

namespace eyas {

struct SafetensorsOptions {
    bool durable = true;  // sync the file and its directory
};

/// Writes tensors in the order given into a file that the caller commits; the data begin at a
/// multiple of 64 bytes (the header is padded with spaces, as the format allows). Throws
/// ContractError for names that occur twice or are reserved, and for dtypes that safetensors does
/// not have; ResourceError when the disk refuses.
inline void write_safetensors(AtomicFile& file, std::span<const NamedTensor> tensors,
                              const std::map<std::string, std::string>& metadata = {}) {
    const auto where = file.path().string();
    OrderedJson header = OrderedJson::object();
    if (!metadata.empty()) header["__metadata__"] = metadata;
    std::set<std::string> seen{"__metadata__"};
    std::uint64_t offset = 0;
    for (const auto& t : tensors) {
        const auto dtype = detail::row(t.tensor.dtype).safetensors;
        if (!seen.insert(t.name).second)
            throw ContractError("tensor name '" + t.name + "' occurs twice or is reserved", where,
                                "Use another name");
        if (dtype.empty())
            throw ContractError("safetensors has no dtype " + std::string(name_of(t.tensor.dtype)),
                                where + ": " + t.name, "Convert the tensor, or write a torch file");
        const auto end = offset + t.tensor.size_bytes();
        header[t.name] = {{"dtype", dtype},
                          {"shape", std::vector<std::int64_t>(t.tensor.shape.dims().begin(),
                                                              t.tensor.shape.dims().end())},
                          {"data_offsets", {offset, end}}};
        offset = end;
    }
    std::string text;
    try {
        text = header.dump();
    } catch (const nlohmann::json::exception&) {
        throw ContractError("a tensor name or metadata value is not UTF-8", where,
                            "Use UTF-8 text");
    }
    text.append((64 - (8 + text.size()) % 64) % 64, ' ');
    const std::uint64_t length = text.size();
    file.write(std::as_bytes(std::span(&length, 1)));
    file.write(text);
    for (const auto& t : tensors) file.write(t.tensor.bytes());
}

/// The same as a file that appears complete or not at all.
inline void write_safetensors(const std::filesystem::path& path,
                              std::span<const NamedTensor> tensors,
                              const std::map<std::string, std::string>& metadata = {},
                              SafetensorsOptions options = {}) {
    AtomicFile file(path, options.durable);
    write_safetensors(file, tensors, metadata);
    file.commit();
}

}  // namespace eyas
