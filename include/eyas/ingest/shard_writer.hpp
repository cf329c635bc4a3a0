#pragma once
#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "eyas/core/file.hpp"
#include "eyas/core/json.hpp"
#include "eyas/store/pack_index.hpp"
#include "eyas/store/packed_shard.hpp"

namespace eyas::detail {

/// The bytes of one feature of a packed sample.
struct PackedPayload {
    TensorView data, scales = {};
};

/// How much of a shard header and index take. What a sample takes is known before it is read, but
/// for rows that are left out, which makes it less: so a shard is written in one pass.
class ShardRoom {
public:
    void add(const PackedSample& s) {
        WireWriter w;
        PackIndex::write(w, s);
        records_ += sizeof(std::uint64_t) + w.bytes().size();
        for (const auto& f : s.features) {
            entries_ += entry(s.id + "/" + f.name, f.stored_dtype(), f.shape, far).size();
            if (f.encoding != Encoding::Plain)
                entries_ +=
                    entry(s.id + "/" + f.name + ".scale", DType::F32, f.scale_shape(), far).size();
            if (is_state(f) && row_bytes(f) % PackedShard::alignment != 0)
                entries_ += pad_entry(far, PackedShard::alignment).size();
        }
    }

    std::uint64_t index_bytes() const { return rounded(PackIndex::header_bytes + records_); }
    /// The JSON header with its length, so that the data begin at a multiple of 64.
    std::uint64_t header_bytes() const {
        const auto index = static_cast<std::int64_t>(index_bytes());
        return rounded(sizeof(std::uint64_t) + opening.size() + 1 + entries_ +
                       entry(std::string(PackedShard::index_name), DType::U8, {index}, 0).size() +
                       pad_entry(far, PackedShard::alignment).size());
    }

    static constexpr std::string_view opening = R"({"__metadata__":{"format":"pt"})";

    /// A tensor in the JSON header, with the comma before it. Throws ContractError for a name that
    /// is not UTF-8.
    static std::string entry(const std::string& name, DType dtype, const Shape& shape,
                             std::uint64_t offset) {
        std::string quoted, dims;
        try {
            quoted = Json(name).dump();
        } catch (const nlohmann::json::exception&) {
            throw ContractError("a tensor name is not UTF-8", "pack", "Use UTF-8 text");
        }
        for (const auto d : shape.dims()) dims += (dims.empty() ? "" : ",") + std::to_string(d);
        const auto end = offset + static_cast<std::uint64_t>(shape.elements()) * size_of(dtype);
        return "," + quoted + R"(:{"dtype":")" + std::string(row(dtype).safetensors) +
               R"(","shape":[)" + dims + R"(],"data_offsets":[)" + std::to_string(offset) + "," +
               std::to_string(end) + "]}";
    }
    static std::string pad_entry(std::uint64_t offset, std::uint64_t bytes) {
        return entry("__eyas_pad__." + std::to_string(offset), DType::U8,
                     {static_cast<std::int64_t>(bytes)}, offset);
    }
    static bool is_state(const PackedFeature& f) { return f.dtype != DType::I64; }
    static std::uint64_t rounded(std::uint64_t n) {
        return (n + PackedShard::alignment - 1) / PackedShard::alignment * PackedShard::alignment;
    }

private:
    static constexpr std::uint64_t far = 1'000'000'000'000'000;  // no offset has more digits

    static std::uint64_t row_bytes(const PackedFeature& f) {
        return static_cast<std::uint64_t>(f.shape[f.shape.rank() - 1]) * size_of(f.stored_dtype());
    }

    std::uint64_t records_ = 0, entries_ = 0;
};

/// Writes one shard: header, index, all states at multiples of 64 bytes, then token rows, then
/// scales. Where rows of states are multiples of 64 bytes, as those of real models are, no padding
/// is needed; elsewhere a U8 tensor `__eyas_pad__.OFFSET` fills the gap, since safetensors allows
/// none. The file appears when commit() has it whole; one writer, one thread.
class ShardWriter {
public:
    ShardWriter(const std::filesystem::path& path, const std::filesystem::path& temporaries,
                bool durable, const ShardRoom& room)
        : file_(path, durable, temporaries),
          header_bytes_(room.header_bytes()),
          index_bytes_(room.index_bytes()),
          end_(index_bytes_),
          header_(ShardRoom::opening) {
        header_ += ShardRoom::entry(std::string(PackedShard::index_name), DType::U8,
                                    {static_cast<std::int64_t>(index_bytes_)}, 0);
    }

    /// One payload per feature, of its stored dtype and shape. Ranges are filled in here.
    void add(PackedSample s, std::span<const PackedPayload> payloads) {
        for (std::size_t i = 0; i < payloads.size(); ++i) {
            auto& f = s.features[i];
            if (ShardRoom::is_state(f)) {
                align();
                f.data = describe(payloads[i].data, end_);
                file_.write_at(header_bytes_ + end_, payloads[i].data.bytes());
                end_ += f.data.bytes;
            } else {
                f.data = keep(payloads[i].data, tokens_);
            }
            if (f.encoding != Encoding::Plain) f.scales = keep(payloads[i].scales, scales_);
        }
        samples_.push_back(std::move(s));
    }

    /// Bytes of the file so far.
    std::uint64_t bytes() const { return header_bytes_ + end_ + tokens_.size() + scales_.size(); }

    /// Publishes the shard and returns its identity. `plan` is a number for PackIndex::plan().
    std::uint64_t commit(std::uint64_t plan) {
        align();
        const auto tokens = end_, scales = end_ + tokens_.size();
        file_.write_at(header_bytes_ + tokens, tokens_);
        file_.write_at(header_bytes_ + scales, scales_);
        for (auto& s : samples_) finish(s, tokens, scales);
        header_ += "}";
        header_.resize(header_bytes_ - sizeof(std::uint64_t), ' ');
        const std::uint64_t length = header_.size();
        file_.write_at(0, std::as_bytes(std::span(&length, 1)));
        file_.write_at(sizeof length, std::as_bytes(std::span(header_.data(), header_.size())));
        std::ranges::sort(samples_, {}, &PackedSample::id);
        const auto index = write_pack_index(samples_, plan, scales + scales_.size(), index_bytes_);
        file_.write_at(header_bytes_, index);
        file_.commit();
        std::uint64_t identity = 0;
        std::memcpy(&identity, index.data() + PackIndex::checksum_at, sizeof identity);
        return identity;
    }

    /// What was added, by ascending id once committed.
    const std::vector<PackedSample>& samples() const { return samples_; }

private:
    static PackedRange describe(const TensorView& t, std::uint64_t offset) {
        return {offset, t.size_bytes(), xxh3(t.bytes())};
    }
    static PackedRange keep(const TensorView& t, std::vector<std::byte>& memory) {
        const auto range = describe(t, memory.size());
        memory.insert(memory.end(), t.bytes().begin(), t.bytes().end());
        return range;
    }
    void align() {
        const auto pad = ShardRoom::rounded(end_) - end_;
        if (pad == 0) return;
        const std::array<std::byte, PackedShard::alignment> zeros{};
        header_ += ShardRoom::pad_entry(end_, pad);
        file_.write_at(header_bytes_ + end_, std::span(zeros).first(pad));
        end_ += pad;
    }
    void finish(PackedSample& s, std::uint64_t tokens, std::uint64_t scales) {
        for (auto& f : s.features) {
            if (!ShardRoom::is_state(f)) f.data.offset += tokens;
            const auto name = s.id + "/" + f.name;
            header_ += ShardRoom::entry(name, f.stored_dtype(), f.shape, f.data.offset);
            if (f.encoding == Encoding::Plain) continue;
            f.scales.offset += scales;
            header_ +=
                ShardRoom::entry(name + ".scale", DType::F32, f.scale_shape(), f.scales.offset);
        }
    }

    AtomicFile file_;
    std::uint64_t header_bytes_, index_bytes_;
    std::uint64_t end_;  // of what is written in the data section
    std::string header_;
    std::vector<std::byte> tokens_, scales_;
    std::vector<PackedSample> samples_;
};

}  // namespace eyas::detail
