#pragma once
#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "eyas/core/directory_lock.hpp"
#include "eyas/ingest/pack_place.hpp"
#include "eyas/sample/manifest.hpp"

namespace eyas {

/// After each sample, and after a shard that an earlier call has finished.
struct PackProgress {
    std::size_t done = 0, total = 0;  // samples
    std::uint64_t bytes = 0;          // of shards written by this call so far
};

struct PackReport {
    Manifest manifest;        // refs to the packed samples, in the order of those given
    std::size_t shards = 0;   // in the directory
    std::size_t reused = 0;   // of them, that an earlier call has finished
    std::uint64_t bytes = 0;  // of all shards
    std::int64_t rows = 0, rows_stripped = 0;  // of all samples; left out as padding
    std::uint64_t bytes_stripped = 0;          // of those rows, in the samples' own dtypes
};

namespace detail {

/// Packs shard by shard; what pack() does.
template <class S>
class Packer {
public:
    using OnProgress = std::function<void(const PackProgress&)>;

    Packer(S& store, const Manifest& manifest, const std::filesystem::path& dir,
           const PackOptions& options, const OnProgress& progress)
        : store_(store),
          refs_(manifest.refs),
          dir_(std::filesystem::absolute(dir / "").lexically_normal().parent_path()),
          options_(options),
          place_(dir_, options_),
          progress_(progress),
          lock_(dir_, "samples are being packed into it", "Let that end, or name another one") {}

    PackReport run() {
        const auto plans = plan_shards(
            refs_, options_, [&](const SampleRef& r) { return specs(r); },
            [&](const SampleRef& r) { return content(r); });
        place_.require_free(refs_, plans);
        const auto temporaries = dir_ / ".eyas-packing";
        std::filesystem::remove_all(temporaries);  // what a killed call left
        if (!options_.auth_token.empty()) place_.protect();
        eyas::create_directories(temporaries);
        report_.manifest.refs.resize(refs_.size());
        for (std::size_t n = 0; n < plans.size(); ++n) {
            const auto path = place_.path_of(n);
            if (const auto there = place_.shard(n))  // of this very plan, or it had been refused
                reuse(*there, plans[n]);
            else
                write(path, temporaries, plans[n]);
            report_.bytes += std::filesystem::file_size(path);
        }
        report_.shards = plans.size();
        std::filesystem::remove_all(temporaries);
        return std::move(report_);
    }

private:
    std::vector<FeatureSpec> specs(const SampleRef& ref) {
        if (!ref.feature_specs.empty()) return ref.feature_specs;
        const auto lease = store_.acquire(ref);
        std::vector<FeatureSpec> found;
        for (const auto& t : store_.stored(lease).tensors) found.push_back(spec_of(t));
        return found;
    }

    /// What a ref stands for, beyond its name: of one whose URI or generation does not change with
    /// its bytes, the sums of these.
    std::uint64_t content(const SampleRef& ref) {
        if (ref.generation() > 0 || ShardLocation::parse(ref.feature_store_uri)) return 0;
        const auto lease = store_.acquire(ref);
        const auto& object = store_.stored(lease);
        std::string text;
        Tensor memory;
        for (std::size_t i = 0; i < object.tensors.size(); ++i) {
            const auto& t = object.tensors[i];
            text += t.name + spec_of(t).shape.text();
            if (const auto crc = object.crcs.find(t.name); crc != object.crcs.end())
                text += hex64(crc->second);
            else if (const auto sum = object.checksums.find(t.name); sum != object.checksums.end())
                text += hex64(sum->second);
            else
                text += hex64(xxh3(readable(object, i, memory).bytes()));
        }
        return xxh3(std::as_bytes(std::span(text.data(), text.size())));
    }

    void reuse(const PackedShard& shard, const ShardPlan& plan) {
        for (std::size_t i = plan.first; i < plan.last; ++i) {
            const auto place = shard.index().find(refs_[i].sample_id);
            if (!place)
                throw DataError("lacks sample '" + refs_[i].sample_id + "'", shard.path().string(),
                                "Remove the shard and pack again");
            refer(i, shard.index().at(*place), feature_layout(specs(refs_[i]), "").rows);
        }
        locate(plan, shard.path(), shard.index().identity());
        ++report_.reused;
        tell(plan.last, 0);
    }

    void write(const std::filesystem::path& path, const std::filesystem::path& temporaries,
               const ShardPlan& plan) {
        ShardWriter writer(path, temporaries, options_.durable, plan.room);
        for (std::size_t i = plan.first; i < plan.last; ++i) {
            add(writer, i);
            tell(i + 1, writer.bytes());
        }
        locate(plan, path, writer.commit(plan.number));
        written_ += writer.bytes();
    }

    void add(ShardWriter& writer, std::size_t i) {
        const auto& ref = refs_[i];
        const auto where = "sample '" + ref.sample_id + "'";
        const auto lease = store_.acquire(ref);
        const auto views = store_.view(lease);
        std::vector<FeatureSpec> own;
        own.reserve(views.size());
        for (const auto& t : views) own.push_back(spec_of(t));
        const auto all = feature_layout(own, where).rows;
        const auto tensor = [&](std::string_view name) {
            return std::ranges::find(views, name, &NamedTensor::name)->tensor;
        };
        const auto rows =
            options_.keep_padding
                ? all
                : rows_without_padding(tensor(feature::input_ids).template as<std::int64_t>(),
                                       tensor(feature::loss_mask).template as<std::int64_t>());
        auto sample = packed_layout(ref.sample_id, own, rows, options_.states);
        std::vector<PackedPayload> payloads;
        std::vector<ScaledFloat8> encoded;
        encoded.reserve(sample.features.size());
        for (const auto& f : sample.features) {
            const TensorView cut{tensor(f.name).data, f.dtype, f.shape};
            if (f.encoding == Encoding::Plain) {
                payloads.push_back({cut});
                continue;
            }
            const auto& e = encoded.emplace_back(encode_e4m3(cut, f.groups, where + ": " + f.name));
            payloads.push_back({e.codes, e.scales});
        }
        refer(i, sample, all);
        writer.add(std::move(sample), payloads);
    }

    /// The ref of a packed sample, but for its place.
    void refer(std::size_t i, const PackedSample& sample, std::int64_t rows_before) {
        auto& ref = report_.manifest.refs[i];
        ref = refs_[i];
        ref.feature_keys.clear();
        ref.feature_specs.clear();
        ref.estimated_bytes = 0;
        for (const auto& f : sample.features) {
            ref.feature_keys.emplace_back(f.name, sample.id + "/" + f.name);
            ref.feature_specs.push_back({.name = f.name, .shape = f.shape, .dtype = f.dtype});
            ref.estimated_bytes += static_cast<std::int64_t>(ref.feature_specs.back().size_bytes());
        }
        const auto rows = feature_layout(ref.feature_specs, "").rows;
        report_.rows += rows_before;
        report_.rows_stripped += rows_before - rows;
        report_.bytes_stripped +=
            static_cast<std::uint64_t>(ref.estimated_bytes / rows * (rows_before - rows));
        ref.num_tokens = rows;
        ref.metadata.erase("generation");
    }
    void locate(const ShardPlan& plan, const std::filesystem::path& path, std::uint64_t identity) {
        for (std::size_t i = plan.first; i < plan.last; ++i)
            report_.manifest.refs[i].feature_store_uri = ShardLocation{path, identity}.text();
    }
    void tell(std::size_t done, std::uint64_t in_shard) const {
        if (progress_) progress_({done, refs_.size(), written_ + in_shard});
    }

    S& store_;
    const std::vector<SampleRef>& refs_;
    std::filesystem::path dir_;
    PackOptions options_;
    PackPlace place_;
    const OnProgress& progress_;
    DirectoryLock lock_;
    std::uint64_t written_ = 0;
    PackReport report_;
};

}  // namespace detail

/// Packs the samples of a manifest, which lie in `store`, into few large safetensors files
/// DIR/shard-00000.safetensors …: the four features of each, tensors `{sample_id}/{feature}`.
/// Python's safetensors opens them as they are; eyas finds samples by their binary index. Nothing
/// is consumed. A shard appears whole or not at all; a call that was ended early is gone on with by
/// the same call, which takes the shards that are finished and writes the others.
///
/// `progress` runs on the calling thread after each sample; what it throws ends the call cleanly.
/// Throws ContractError where DIR holds shards of other samples or of other options, a file of a
/// shard's name that cannot be read, objects of the same samples, or samples of it were consumed;
/// ResourceError where another call is packing into it or the disk refuses; DataError for a sample
/// that is not valid; AuthenticationError for another token than the directory's; what the store
/// throws. `S` offers acquire(), view() and stored() as Store<Backend> does.
template <class S>
PackReport pack(S& store, const Manifest& manifest, const std::filesystem::path& dir,
                const PackOptions& options = {},
                const std::function<void(const PackProgress&)>& progress = {}) {
    return detail::Packer<S>(store, manifest, dir, options, progress).run();
}

}  // namespace eyas
