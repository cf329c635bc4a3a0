#pragma once
#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "eyas/core/file.hpp"
#include "eyas/core/json.hpp"
#include "eyas/core/tensor.hpp"
#include "eyas/format/safetensors_writer.hpp"

namespace eyas {

/// A safetensors file, mapped. The whole header is checked on opening: every tensor lies inside the
/// file, they neither overlap nor leave holes, and each one's size is that of its dtype and shape.
/// Copies share the mapping; views live as long as any copy. Reading is thread-safe.
/// Format: 8 bytes header length (little endian), a JSON object, tensor data.
class SafetensorsFile {
public:
    /// Throws DataError for a file that is not valid, ResourceError when it cannot be mapped.
    explicit SafetensorsFile(const std::filesystem::path& path) : file_(path) { parse(); }

    const std::map<std::string, std::string>& metadata() const { return metadata_; }
    const std::vector<NamedTensor>& tensors() const { return tensors_; }  // by offset
    const std::filesystem::path& path() const { return file_.path(); }
    std::span<const std::byte> bytes() const { return file_.bytes(); }  // the whole file
    int descriptor() const { return file_.descriptor(); }
    bool on_network() const { return file_.on_network(); }
    bool contains(std::string_view name) const { return find(name) != nullptr; }

    /// Throws DataError that names the file when there is no such tensor.
    TensorView at(std::string_view name) const {
        if (const auto* t = find(name)) return t->tensor;
        fail("no tensor '" + std::string(name) + "'", "Check that this is the right file");
    }

private:
    static constexpr std::uint64_t longest_header = 100'000'000;  // the format's own limit

    const NamedTensor* find(std::string_view name) const {
        const auto it = index_.find(name);
        return it == index_.end() ? nullptr : &tensors_[it->second];
    }

    [[noreturn]] void fail(const std::string& what,
                           const std::string& remedy = "Write the file again") const {
        throw DataError(what, path().string(), remedy);
    }

    void parse() {
        static_assert(std::endian::native == std::endian::little);
        const auto bytes = file_.bytes();
        std::uint64_t length = 0;
        if (bytes.size() < sizeof length) fail("too short for a safetensors file");
        std::memcpy(&length, bytes.data(), sizeof length);
        if (length > longest_header || length > bytes.size() - sizeof length)
            fail("header of " + std::to_string(length) + " bytes does not fit the file");
        const std::string_view text(reinterpret_cast<const char*>(bytes.data()) + sizeof length,
                                    length);
        const auto header = parse_json(text, path().string());
        if (!header.is_object()) fail("the header is not an object");
        const auto data = bytes.subspan(sizeof length + length);
        std::vector<std::pair<std::uint64_t, std::uint64_t>> ranges;
        for (const auto& [name, entry] : header.items()) {
            if (name == "__metadata__")
                read_metadata(entry);
            else
                ranges.push_back(read_tensor(name, entry, data));
        }
        std::ranges::sort(tensors_, {}, [](const NamedTensor& t) { return t.tensor.data; });
        for (std::size_t i = 0; i < tensors_.size(); ++i) index_.emplace(tensors_[i].name, i);
        std::ranges::sort(ranges);
        std::uint64_t end = 0;
        for (const auto& [from, to] : ranges) {
            if (from != end)
                fail("tensors overlap or leave a hole at offset " + std::to_string(from));
            end = to;
        }
        if (end != data.size())
            fail("the data end at " + std::to_string(data.size()) + ", the header says " +
                 std::to_string(end));
    }

    void read_metadata(const Json& entry) {
        if (!entry.is_object()) fail("__metadata__ is not an object");
        for (const auto& [key, value] : entry.items()) {
            if (!value.is_string()) fail("__metadata__." + key + " is not a string");
            metadata_[key] = value.get<std::string>();
        }
    }

    std::pair<std::uint64_t, std::uint64_t> read_tensor(const std::string& name, const Json& entry,
                                                        std::span<const std::byte> data) {
        const std::string where = path().string() + ": " + name;
        const auto dims = required<std::vector<std::int64_t>>(entry, "shape", where);
        const auto offsets = required<std::vector<std::uint64_t>>(entry, "data_offsets", where);
        const auto dtype = dtype_of_name(required<std::string>(entry, "dtype", where), where);
        if (dims.size() > Shape::max_rank || offsets.size() != 2 || offsets[0] > offsets[1] ||
            offsets[1] > data.size())
            throw DataError("shape or data_offsets are out of range", where,
                            "Write the file again");
        const Shape shape{std::span<const std::int64_t>(dims)};
        if (static_cast<std::uint64_t>(shape.elements()) * size_of(dtype) !=
            offsets[1] - offsets[0])
            throw DataError("shape " + shape.text() + " does not fit its " +
                                std::to_string(offsets[1] - offsets[0]) + " bytes",
                            where, "Write the file again");
        tensors_.push_back({name, {data.data() + offsets[0], dtype, shape}});
        return {offsets[0], offsets[1]};
    }

    static DType dtype_of_name(const std::string& name, const std::string& where) {
        for (const auto& r : detail::dtype_table)
            if (!r.safetensors.empty() && r.safetensors == name) return r.dtype;
        throw DataError("unknown dtype '" + name + "'", where, "Store it as another type");
    }

    MappedFile file_;
    std::map<std::string, std::string> metadata_;
    std::vector<NamedTensor> tensors_;
    std::map<std::string, std::size_t, std::less<>> index_;
};

}  // namespace eyas
