#pragma once
#include "command.hpp"
#include "eyas/ingest/handshake.hpp"
#include "eyas/ingest/ingest.hpp"
#include "stores.hpp"

namespace eyas::cli {

class IngestCommand : public Command {
public:
    explicit IngestCommand(CLI::App& parent)
        : Command(parent, "ingest",
                  "producer: put feature files into a store and write the manifest that a trainer "
                  "pool reads") {
        app_.add_option("--features", features_, "directory of feature files (.ckpt, .ckpt.gz)")
            ->required();
        app_.add_option("--store", store_.uri,
                        "disagg:DIR?store_id=NAME, or eyas+tcp://HOST:PORT of eyas serve")
            ->required();
        app_.add_option("--manifest", manifest_,
                        "where the manifest goes; FILE.done appears beside it at the end")
            ->required();
        app_.add_option("--run-id", options_.run_id, "first part of every sample id")
            ->capture_default_str();
        app_.add_option("--ttt-length", options_.ttt_length, "recorded in the refs")
            ->capture_default_str();
        app_.add_option("--max-len", options_.max_len, "recorded in the refs")
            ->capture_default_str();
        app_.add_option("--vocab-size", vocab_size_, "refuse token ids outside it");
        app_.add_flag("--skip-bad", options_.skip_bad, "leave bad files out, count and list them");
        app_.add_flag("--link", options_.link,
                      "make the .ckpt files themselves the store's (clone or hard link) instead of "
                      "copying them: takes no time, but states are not checked here, and the files "
                      "must not be written to any more");
    }

private:
    OrderedJson run() override {
        if (vocab_size_ > 0) options_.vocab_size = vocab_size_;
        const ManifestHandshake handshake{manifest_};
        handshake.begin();
        try {
            return with_store(store_, [&](auto& store) { return put_all(store, handshake); });
        } catch (const std::exception& e) {
            handshake.failed(e.what());
            throw;
        }
    }

    template <class S>
    OrderedJson put_all(S& store, const ManifestHandshake& handshake) {
        const auto start = std::chrono::steady_clock::now();
        Progress progress("ingest", static_cast<std::int64_t>(feature_files(features_).size()));
        const auto report = eyas::ingest(store, features_, options_, [&](const IngestProgress& p) {
            progress.show(static_cast<std::int64_t>(p.done),
                          "  " + bytes_text(static_cast<double>(p.bytes)));
            if (stop_requested()) throw ResourceError("interrupted", manifest_, "Run ingest again");
        });
        write_manifest(manifest_, report.manifest);
        handshake.done();
        const double seconds =
            std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        std::printf(
            "%zu samples, %s in %s (%s/s) -> %s\n", report.manifest.refs.size(),
            bytes_text(static_cast<double>(report.bytes)).c_str(), duration_text(seconds).c_str(),
            bytes_text(static_cast<double>(report.bytes) / seconds).c_str(), manifest_.c_str());
        OrderedJson bad = OrderedJson::array();
        for (const auto& b : report.bad) {
            std::printf("left out: %s\n", b.error.c_str());
            bad.push_back({{"file", b.path.string()}, {"error", b.error}});
        }
        if (!bad.empty()) std::printf("%zu bad files were left out\n", bad.size());
        return {{"manifest", manifest_},
                {"samples", report.manifest.refs.size()},
                {"bytes", report.bytes},
                {"seconds", seconds},
                {"bad", bad}};
    }

    std::string features_, manifest_;
    StoreArguments store_;
    IngestOptions options_;
    std::int64_t vocab_size_ = 0;
};

}  // namespace eyas::cli
