#pragma once
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <random>

#include "bench/timing.hpp"
#include "eyas/core/bfloat16.hpp"
#include "eyas/format/torch_file.hpp"
#include "eyas/ingest/ingest.hpp"
#include "eyas/ingest/pack.hpp"
#include "eyas/loader/loader.hpp"
#include "eyas/store/local_files.hpp"
#include "eyas/store/packed_shards.hpp"
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
        std::printf("%-52s %8s %8s %8s\n", "", "GB/s", "min", "max");
    }
    ~LocalRows() {
        std::error_code ignored;
        fs::remove_all(root_, ignored);
    }

    void run() {
        ceilings();
        ingest_into_store(false, false);
        ingest_into_store(true, false);
        ingest_into_store(false, true);
        ingest_into_store(false, false);  // what is read below
        Store<LocalFiles> files({.root = root_ / "features"});
        const auto found = scan_features(root_ / "features");
        Store<SharedDirectory> shared(shared_options(false));
        pack_samples(shared);
        Store<PackedShards> packed({.root = root_ / "packed"});
        gets<LocalFiles>("local files (.ckpt)", {.root = root_ / "features"}, found);
        gets<SharedDirectory>("shared directory", shared_options(false), manifest_);
        gets<PackedShards>("packed shards", {.root = root_ / "packed"}, packed_);
        load("local files", files, found);
        load("shared directory", shared, manifest_);
        load("packed shards", packed, packed_);
        many_puts();
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

    template <class F, class Before>
    void row(const std::string& what, F&& f, Before&& before) {
        const auto t = times_of(f, runs_, before);
        std::printf("%-52s %8.2f %8.2f %8.2f\n", what.c_str(), bytes_ / t.median / 1e9,
                    bytes_ / t.max / 1e9, bytes_ / t.min / 1e9);
        std::fflush(stdout);
    }
    template <class F>
    void row(const std::string& what, F&& f) {
        row(what, f, [] {});
    }
    template <class F>
    void each_row(const std::string& what, F&& f) {
        const auto t = times_of(f, runs_);
        const auto us = [&](double s) { return s / static_cast<double>(samples_) * 1e6; };
        std::printf("%-52s %8.1f %8.1f %8.1f  us a sample\n", what.c_str(), us(t.median), us(t.min),
                    us(t.max));
        std::fflush(stdout);
    }
    void clear(const char* name) const {
        std::error_code ignored;
        fs::remove_all(root_ / name, ignored);
    }

    void ceilings() {
        const auto n = static_cast<std::size_t>(bytes_),
                   sample = static_cast<std::size_t>(bytes_ / static_cast<double>(samples_));
        const Shape all{static_cast<std::int64_t>(n)};
        auto source = Tensor::zeros(DType::U8, all), place = Tensor::zeros(DType::U8, all);
        const auto* from = source.view().data;
        auto* to = place.mutable_view().data;
        row("memcpy, all at once", [&] { std::memcpy(to, from, n); });
        row("memcpy, sample by sample into one place", [&] {
            for (std::size_t at = 0; at + sample <= n; at += sample)
                std::memcpy(to, from + at, sample);
        });
        for (const bool synced : {false, true})
            row(
                synced ? "cp, then fsync of each file" : "cp",
                [&] {
                    const auto copy = (root_ / "copy").string();
                    const auto command = "cp -r '" + (root_ / "features").string() + "' '" + copy +
                                         "'" + (synced ? " && sync '" + copy + "'/*" : "");
                    if (std::system(command.c_str()) != 0) throw std::runtime_error("cp failed");
                },
                [&] { clear("copy"); });
        clear("copy");
    }

    void ingest_into_store(bool durable, bool link) {
        const auto once = [&] {
            Store<SharedDirectory> store(shared_options(durable));
            manifest_ = ingest(store, root_ / "features", {.link = link}).manifest;
        };
        if (link)
            return each_row("ingest --link, no fsync", [&] {
                clear("store");
                once();
            });
        row(durable ? "ingest, each sample fsynced" : "ingest, no fsync", once,
            [&] { clear("store"); });
    }

    template <class S>
    void pack_samples(S& store) {
        row(
            "pack, no fsync",
            [&] {
                packed_ = pack(store, manifest_, root_ / "packed", {.durable = false}).manifest;
            },
            [&] { clear("packed"); });
    }

    template <class B>
    void gets(const std::string& what, const typename B::Options& place, const Manifest& manifest) {
        for (const bool verified : {true, false}) {
            Store<B> store(place, {.verify_checksums = verified});
            const std::string how = verified ? ", checksums compared" : ", not compared";
            row("get into memory, " + what + how, [&] {
                for (const auto& ref : manifest.refs) {
                    auto lease = store.acquire(ref);
                    store.read_into(lease, buffers(ref));
                    store.release(std::move(lease));
                }
            });
            const auto look = [&] {
                for (const auto& ref : manifest.refs) {
                    auto lease = store.acquire(ref);
                    views_ += store.view(lease).size();
                    store.release(std::move(lease));
                }
            };
            if (verified)
                row("get of views, " + what + how, look);
            else
                each_row("get of views, " + what + how, look);
        }
    }

    /// A sample's features one after the other in the arena.
    std::vector<NamedBuffer> buffers(const SampleRef& ref) {
        std::size_t bytes = 0;
        for (const auto& s : ref.feature_specs) bytes += (s.size_bytes() + 63) / 64 * 64;
        if (arena_.empty() || arena_.view().size_bytes() < bytes)
            arena_ = Tensor::zeros(DType::U8, {static_cast<std::int64_t>(bytes)});
        std::vector<NamedBuffer> all;
        auto* at = arena_.mutable_view().data;
        for (const auto& s : ref.feature_specs) {
            all.push_back({s.name, {at, s.dtype, s.shape}});
            at += (s.size_bytes() + 63) / 64 * 64;
        }
        return all;
    }

    /// A loader is made once for a run, so its ring is warm here too.
    template <class S>
    void load(const std::string& what, S& store, const Manifest& manifest) {
        for (const std::int64_t threads : {1, 2}) {
            LoaderOptions options;
            options.max_len = tokens_;
            options.threads = threads;
            options.epochs = static_cast<std::int64_t>(runs_) + 2;
            Loader loader(store, manifest, options);
            row("loader, " + what + ", threads: " + std::to_string(threads), [&] {
                for (long i = 0; i < samples_; ++i) views_ += loader.next()->sample_ids.size();
            });
        }
    }

    /// How a put's time grows with what the directory holds.
    void many_puts() {
        constexpr int count = 5000, parts = 5;
        Store<SharedDirectory> store(
            {.root = root_ / "many", .store_id = "many", .files = {.durable = false}});
        auto ids = Tensor::zeros(DType::I64, {8});
        const NamedTensor features[] = {{"input_ids", ids}};
        std::printf("%d tiny puts, us each, by fifths:", count);
        for (int part = 0; part < parts; ++part) {
            const double s = seconds_of([&] {
                for (int i = 0; i < count / parts; ++i)
                    store.put({.sample_id = std::to_string(part * count + i), .run_id = "many"},
                              features);
            });
            std::printf(" %.0f", s / (count / parts) * 1e6);
        }
        std::printf("\n");
    }

    fs::path root_;
    long samples_, tokens_, width_;
    std::size_t runs_, views_ = 0;
    double bytes_ = 0;
    Manifest manifest_, packed_;
    Tensor arena_;
};
}  // namespace eyas::bench
