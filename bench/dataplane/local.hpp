#pragma once
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <memory>
#include <random>

#include "bench/timing.hpp"
#include "eyas/core/bfloat16.hpp"
#include "eyas/format/torch_file.hpp"
#include "eyas/ingest/ingest.hpp"
#include "eyas/loader/loader.hpp"
#include "eyas/store/local_files.hpp"
#include "eyas/store/memory.hpp"
#include "eyas/store/shared_directory.hpp"
#include "eyas/store/store.hpp"

// What carries features from the capture to the trainer on one machine (ingest into a shared store,
// get from it and from local files, the loader) beside this machine's memcpy and file copy. A
// sample is what a target of width H writes: bf16 hidden states [1, T, H] and [1, T, 3H], int64 ids
// and loss mask [T].
namespace eyas::bench {
namespace fs = std::filesystem;

class LocalRows {
public:
    explicit LocalRows(const Arguments& a)
        : root_(fs::path(a.text("dir")) / "eyas-bench-data-path"),
          samples_(a.number("samples")),
          tokens_(a.number("tokens")),
          width_(a.number("width")),
          runs_(static_cast<std::size_t>(a.number("runs"))) {
        fs::remove_all(root_);
        eyas::create_directories(root_ / "features");
        write_features();
        std::printf("%ld samples of T %ld, H %ld: %.1f MB each; %s\n\n", samples_, tokens_, width_,
                    bytes_ / static_cast<double>(samples_) / 1e6, a.text("dir").c_str());
        std::printf("%-44s %8s %8s %8s\n", "", "GB/s", "min", "max");
    }
    ~LocalRows() {
        std::error_code ignored;
        fs::remove_all(root_, ignored);
    }

    void run() {
        ceilings();
        ingest_into_store(false);
        ingest_into_store(true);
        Store<LocalFiles> files({.root = root_ / "features"});
        const auto found = scan_features(root_ / "features");
        gets("local files (.ckpt)", files, found, true);
        StorePolicy trusting;
        trusting.verify_checksums = false;
        Store<SharedDirectory> shared(shared_options(false)),
            unverified(shared_options(false), trusting);
        gets("shared directory", shared, manifest_, true);
        gets("shared directory, checksums off", unverified, manifest_, false);
        load("loader, local files", files, found);
        load("loader, shared directory", shared, manifest_);
    }

private:
    SharedDirectory::Options shared_options(bool durable) const {
        return {.root = root_ / "store", .store_id = "bench", .files = {.durable = durable}};
    }

    void write_features() {
        std::mt19937 random(1);
        for (long i = 0; i < samples_; ++i) {
            auto ids = Tensor::zeros(DType::I64, {tokens_}),
                 mask = Tensor::zeros(DType::I64, {tokens_});
            std::ranges::fill(mask.as<std::int64_t>(), 1);
            Tensor last(DType::BF16, {1, tokens_, width_}),
                aux(DType::BF16, {1, tokens_, 3 * width_});
            for (auto* t : {&last, &aux})
                for (auto& v : t->as<BFloat16>())
                    v = BFloat16(static_cast<float>(random() % 2000) / 1000.f - 1.f);
            const std::vector<NamedTensor> tensors{{"input_ids", ids},
                                                   {"loss_mask", mask},
                                                   {"hidden_state", last},
                                                   {"aux_hidden_state", aux}};
            char name[32];
            std::snprintf(name, sizeof name, "data_%06ld.ckpt", i);
            write_torch_file(root_ / "features" / name, tensors);
            for (const auto& t : tensors) bytes_ += static_cast<double>(t.tensor.size_bytes());
        }
    }

    template <class F>
    void row(const std::string& what, F&& f) {
        const auto t = times_of(f, runs_);
        std::printf("%-44s %8.2f %8.2f %8.2f\n", what.c_str(), bytes_ / t.median / 1e9,
                    bytes_ / t.max / 1e9, bytes_ / t.min / 1e9);
        std::fflush(stdout);
    }

    void ceilings() {
        const auto n = static_cast<std::size_t>(bytes_);
        std::vector<std::byte> from(n, std::byte{1}), to(n);
        row("memcpy, one thread", [&] { std::memcpy(to.data(), from.data(), n); });
        row("copy of the files (as cp)", [&] {
            fs::remove_all(root_ / "copy");
            fs::copy(root_ / "features", root_ / "copy");
        });
        fs::remove_all(root_ / "copy");
    }

    void ingest_into_store(bool durable) {
        row(durable ? "ingest, every put on the disk (fsync)" : "ingest, no fsync", [&] {
            fs::remove_all(root_ / "store");
            Store<SharedDirectory> store(shared_options(durable));
            manifest_ = ingest(store, root_ / "features", {}).manifest;
        });
    }

    template <class S>
    void gets(const std::string& what, S& store, const Manifest& manifest, bool verified) {
        std::vector<std::byte> arena(
            static_cast<std::size_t>(bytes_ / static_cast<double>(samples_)));
        row("get + copy out, " + what, [&] {
            for (const auto& ref : manifest.refs) {
                auto lease = store.acquire(ref);
                std::size_t at = 0;
                for (const auto& t : store.view(lease)) {
                    std::memcpy(arena.data() + at, t.tensor.bytes().data(), t.tensor.size_bytes());
                    at += t.tensor.size_bytes();
                }
                store.release(std::move(lease));
            }
        });
        if (verified)
            row("get of verified views, " + what, [&] {
                for (const auto& ref : manifest.refs) {
                    auto lease = store.acquire(ref);
                    views_ += store.view(lease).size();
                    store.release(std::move(lease));
                }
            });
    }

    template <class S>
    void load(const std::string& what, S& store, const Manifest& manifest) {
        LoaderOptions options;
        options.max_len = tokens_;
        row(what + " (to batches)", [&] {
            Loader loader(store, manifest, options);
            while (const Batch* b = loader.next()) views_ += b->sample_ids.size();
        });
    }

    fs::path root_;
    long samples_, tokens_, width_;
    std::size_t runs_, views_ = 0;
    double bytes_ = 0;
    Manifest manifest_;
};
}  // namespace eyas::bench
