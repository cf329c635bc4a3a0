#pragma once
#include "command.hpp"
#include "eyas/ingest/pack.hpp"
#include "stores.hpp"

namespace eyas::cli {

class PackCommand : public Command {
public:
    explicit PackCommand(CLI::App& parent)
        : Command(parent, "pack",
                  "copy the samples of a store into few large safetensors files, which packed:DIR, "
                  "file:DIR and disagg:DIR read; run again, it goes on where it was stopped") {
        app_.add_option("--store", store_.uri,
                        "where the samples are: file:DIR, disagg:DIR?store_id=NAME, packed:DIR, "
                        "eyas+tcp://HOST:PORT")
            ->required();
        app_.add_option("--manifest", manifest_,
                        "samples to pack; for file:DIR and packed:DIR all of the directory where "
                        "absent");
        app_.add_option("--out", out_, "directory for shard-00000.safetensors …")->required();
        app_.add_option("--manifest-out", manifest_out_,
                        "the manifest that names the shards; DIR/manifest.json where absent");
        app_.add_option("--shard-bytes", options_.shard_bytes, "a shard is at most so large")
            ->capture_default_str()
            ->check(CLI::PositiveNumber);
        app_.add_option("--dtype", dtype_,
                        "keep, or fp8_e4m3: hidden states in 8 bits with a scale per row")
            ->capture_default_str()
            ->check(CLI::IsMember({"keep", "fp8_e4m3"}));
        app_.add_flag("--keep-padding", options_.keep_padding,
                      "keep the pad rows at the end of samples (token 0, mask 0) too");
    }

private:
    OrderedJson run() override {
        options_.states = dtype_ == "keep" ? PackedStates::Keep : PackedStates::Fp8E4M3;
        options_.auth_token = store_.policy().auth_token;
        if (manifest_out_.empty()) {
            manifest_out_ = (std::filesystem::path(out_) / packed_manifest).string();
            require_own_manifest();
        }
        const auto samples = samples_of(store_, manifest_);
        return with_store(store_, [&](auto& store) { return pack_all(store, samples); });
    }

    /// The manifest that is written without being named replaces none of other samples.
    void require_own_manifest() const {
        if (!std::filesystem::exists(manifest_out_)) return;
        for (const auto& ref : read_manifest(manifest_out_).refs)
            if (!eyas::detail::ShardLocation::parse(ref.feature_store_uri))
                throw ContractError("it names samples that are not packed, and would be replaced",
                                    manifest_out_, "Use --manifest-out, or another --out");
    }

    template <class S>
    OrderedJson pack_all(S& store, const Manifest& samples) const {
        const auto start = std::chrono::steady_clock::now();
        Progress progress("pack", static_cast<std::int64_t>(samples.refs.size()));
        const auto r = eyas::pack(store, samples, out_, options_, [&](const PackProgress& p) {
            progress.show(static_cast<std::int64_t>(p.done),
                          "  " + bytes_text(static_cast<double>(p.bytes)));
            if (stop_requested()) throw ResourceError("interrupted", out_, "Run it again to go on");
        });
        write_manifest(manifest_out_, r.manifest);
        const double seconds =
            std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        std::printf("%zu samples in %zu shards (%zu were there), %s in %s -> %s\n",
                    r.manifest.refs.size(), r.shards, r.reused,
                    bytes_text(static_cast<double>(r.bytes)).c_str(),
                    duration_text(seconds).c_str(), manifest_out_.c_str());
        std::printf("%lld of %lld rows were padding and left out (%s)\n",
                    static_cast<long long>(r.rows_stripped), static_cast<long long>(r.rows),
                    bytes_text(static_cast<double>(r.bytes_stripped)).c_str());
        return {{"manifest", manifest_out_},
                {"samples", r.manifest.refs.size()},
                {"shards", r.shards},
                {"reused", r.reused},
                {"bytes", r.bytes},
                {"rows", r.rows},
                {"rows_stripped", r.rows_stripped},
                {"bytes_stripped", r.bytes_stripped},
                {"seconds", seconds}};
    }

    std::string manifest_, out_, manifest_out_, dtype_ = "keep";
    StoreArguments store_;
    PackOptions options_;
};

}  // namespace eyas::cli
