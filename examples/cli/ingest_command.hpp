#pragma once
#include "command.hpp"
#include "eyas/ingest/capture_done.hpp"
#include "eyas/ingest/handshake.hpp"
#include "eyas/ingest/ingest.hpp"
#include "eyas/ingest/stream_ingest.hpp"
#include "stores.hpp"

namespace eyas::cli {

class IngestCommand : public Command {
public:
    explicit IngestCommand(CLI::App& parent)
        : Command(parent, "ingest",
                  "producer: put feature files into a store and write the manifest, or the "
                  "manifest stream, that a trainer pool reads") {
        app_.add_option("--features", features_, "directory of feature files (.ckpt, .ckpt.gz)")
            ->required();
        app_.add_option("--store", store_.uri,
                        "disagg:DIR?store_id=NAME, or eyas+tcp://HOST:PORT of eyas serve")
            ->required();
        auto* refs = app_.add_option_group("refs", "where the refs go");
        refs->add_option("--manifest", manifest_,
                         "where the manifest goes; FILE.done appears beside it at the end");
        auto* stream = refs->add_option(
            "--stream", stream_,
            "FILE.jsonl: a manifest to which each sample is added as soon as the store has it; "
            "goes on where an earlier run ended");
        refs->require_option(1, 2);
        auto* watch =
            app_.add_flag("--watch", watch_, "look for new feature files until capture is done");
        watch->needs(stream);
        app_.add_option("--until", until_,
                        "with --watch: the file that says so (default FEATURES/CAPTURE.done)")
            ->needs(watch);
        app_.add_option("--run-id", options_.run_id, "first part of every sample id")
            ->capture_default_str();
        app_.add_option("--ttt-length", options_.ttt_length, "recorded in the refs")
            ->capture_default_str();
        app_.add_option("--max-len", options_.max_len, "recorded in the refs")
            ->capture_default_str();
        app_.add_option("--vocab-size", vocab_size_, "refuse token ids outside it");
        app_.add_flag("--skip-bad", options_.skip_bad, "leave bad files out, count and list them");
        app_.add_option("--put-threads", options_.put_threads, "that write into the store at once")
            ->capture_default_str()
            ->check(CLI::Range(1, 64));
        app_.add_flag("--link", options_.link,
                      "make the .ckpt files themselves the store's (clone or hard link) instead of "
                      "copying them: takes no time, but states are not checked here, and the files "
                      "must not be written to any more");
    }

private:
    OrderedJson run() override {
        if (vocab_size_ > 0) options_.vocab_size = vocab_size_;
        const ManifestHandshake handshake{manifest_};
        try {
            if (stream_.empty()) begin(handshake);
            return with_store(store_, [&](auto& store) {
                return stream_.empty() ? put_all(store, handshake)
                                       : put_as_they_come(store, handshake);
            });
        } catch (const std::exception& e) {
            if (began_) handshake.failed(e.what());
            if (!stream_.empty()) mark_failed(e.what());
            throw;
        }
    }

    /// With a stream, only once its lock is held: the manifest may be another producer's.
    void begin(const ManifestHandshake& handshake) {
        if (manifest_.empty()) return;
        handshake.begin();
        began_ = true;
    }

    /// Who waits for the stream is told; where another producer holds it, that one goes on.
    void mark_failed(const std::string& reason) const {
        try {
            ManifestStreamWriter writer(stream_, {.producer = producer()});
            if (!writer.finished()) writer.fail(reason);
        } catch (const Error& e) {
            std::fprintf(stderr, "the failure was not marked: %s\n", e.what());
        }
    }

    template <class S>
    OrderedJson put_as_they_come(S& store, const ManifestHandshake& handshake) {
        const auto start = std::chrono::steady_clock::now();
        StreamIngestOptions options{.ingest = options_, .stop = &stop_requested()};
        if (watch_)
            options.until =
                until_.empty() ? capture_done_file(features_) : std::filesystem::path(until_);
        else
            feature_files(features_);  // there must be some
        StreamIngest ingest(store, features_, stream_, {.producer = producer()}, options);
        begin(handshake);
        std::printf("stream %s, %zu samples are there\n",
                    ingest.stream().header().stream_id.c_str(), ingest.stream().refs());
        std::fflush(stdout);
        Progress progress("ingest", 0);
        const auto report = ingest.run([&](const IngestProgress& p) {
            progress.show(static_cast<std::int64_t>(p.done),
                          "  " + bytes_text(static_cast<double>(p.bytes)));
        });
        if (!report.stopped && !manifest_.empty()) {
            write_manifest(manifest_, read_manifest(stream_));
            handshake.done();
        }
        auto result = tell(report.refs, report.bytes, report.bad, start, stream_);
        result["stream"] = ingest.stream().header().stream_id;
        result["added"] = report.added;
        if (report.stopped) std::printf("stopped (run it again to go on)\n");
        return result;
    }

    static std::string producer() {
        char name[256] = {};
        return ::gethostname(name, sizeof name - 1) == 0 ? "eyas ingest on " + std::string(name)
                                                         : "eyas ingest";
    }

    OrderedJson tell(std::size_t samples, std::uint64_t bytes, const std::vector<BadFile>& left_out,
                     std::chrono::steady_clock::time_point start, const std::string& file) const {
        const double seconds =
            std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        std::printf("%zu samples, %s in %s (%s/s) -> %s\n", samples,
                    bytes_text(static_cast<double>(bytes)).c_str(), duration_text(seconds).c_str(),
                    bytes_text(static_cast<double>(bytes) / seconds).c_str(), file.c_str());
        OrderedJson bad = OrderedJson::array();
        for (const auto& b : left_out) {
            std::printf("left out: %s\n", b.error.c_str());
            bad.push_back({{"file", b.path.string()}, {"error", b.error}});
        }
        if (!bad.empty()) std::printf("%zu bad files were left out\n", bad.size());
        return {{"manifest", file},
                {"samples", samples},
                {"bytes", bytes},
                {"seconds", seconds},
                {"bad", bad}};
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
        return tell(report.manifest.refs.size(), report.bytes, report.bad, start, manifest_);
    }

    std::string features_, manifest_, stream_, until_;
    bool watch_ = false, began_ = false;
    StoreArguments store_;
    IngestOptions options_;
    std::int64_t vocab_size_ = 0;
};

}  // namespace eyas::cli
