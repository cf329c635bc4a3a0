#pragma once
#include <atomic>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <thread>
#include <unordered_set>
#include <utility>
#include <vector>

#include "eyas/ingest/ingest.hpp"
#include "eyas/sample/stream_writer.hpp"

namespace eyas {

struct StreamIngestOptions {
    IngestOptions ingest = {};
    /// Look for new files until this one exists (capture's CAPTURE.done); empty: one look.
    std::filesystem::path until = {};
    std::chrono::milliseconds interval{200};  // between two looks
    const std::atomic<bool>* stop = nullptr;  // ends it between two files; the stream stays open
};

struct StreamIngestReport {
    std::size_t added = 0;  // by this call
    std::size_t refs = 0;   // in the stream
    std::vector<BadFile> bad = {};
    std::uint64_t bytes = 0;  // of tensors put into the store
    bool stopped = false;     // the stop flag ended it; run it again to go on
};

/// Puts feature files into a store as they appear and tells each in a manifest stream as soon as
/// the store has it; ends the stream when the last one is in. Files that appear between two looks
/// are taken in lexicographic order of their paths; a sample's index is its place in the stream,
/// and its metadata name the file, so a call with the stream of an earlier one goes on where that
/// ended (a sample that was put and not told is put again, as a newer generation).
///
/// Files must appear whole (by rename), as capture's do. Bad files as in ingest(); the stream is
/// left open when this throws, the caller may mark the failure. Not for two threads.
template <class Sink>
class StreamIngest {
public:
    /// `dir` need not exist yet.
    StreamIngest(Sink& store, std::filesystem::path dir, const std::filesystem::path& stream,
                 ManifestStreamWriter::Options writing, StreamIngestOptions options)
        : store_(store),
          dir_(detail::absolute_lexical(dir)),
          options_(std::move(options)),
          writer_(stream, std::move(writing), [this](const SampleRef& r) { adopt(r); }) {}

    /// `progress` runs on the calling thread after each file; its total grows with what is found.
    StreamIngestReport run(const std::function<void(const IngestProgress&)>& progress = {}) {
        while (!writer_.finished() && !stopped()) {
            // Looked for first: what the last look finds was there when this file was.
            const bool last = options_.until.empty() || std::filesystem::exists(options_.until);
            const bool whole = look(progress);
            if (last && whole)
                writer_.finish();
            else if (!last)
                std::this_thread::sleep_for(options_.interval);
        }
        report_.refs = writer_.refs();
        report_.stopped = !writer_.finished();
        return report_;
    }

    ManifestStreamWriter& stream() { return writer_; }

private:
    bool stopped() const { return options_.stop && options_.stop->load(); }

    // The name by which the stream knows a file: relative, so that the directory may move.
    std::string name_of_file(const std::filesystem::path& file) const {
        return file == dir_ ? file.filename().string() : file.lexically_relative(dir_).string();
    }

    void adopt(const SampleRef& ref) {
        known_.insert(
            required<std::string>(ref.metadata, "file", "sample '" + ref.sample_id + "'"));
        if (!first_ && !ref.feature_specs.empty())
            first_ = feature_layout(ref.feature_specs, "sample '" + ref.sample_id + "'");
    }

    // Takes every new file; false when stopped on the way.
    bool look(const std::function<void(const IngestProgress&)>& progress) {
        std::vector<std::filesystem::path> fresh;
        for (auto& f : detail::feature_files_so_far(dir_))
            if (!known_.contains(name_of_file(f))) fresh.push_back(std::move(f));
        const auto total = known_.size() + fresh.size();
        for (const auto& file : fresh) {
            if (stopped()) return false;
            const auto ref = take(file);
            known_.insert(name_of_file(file));
            if (progress)
                progress({known_.size(), total, report_.bad.size(), report_.bytes,
                          ref ? &*ref : nullptr});
        }
        return true;
    }

    std::optional<SampleRef> take(const std::filesystem::path& file) {
        std::optional<detail::CheckedSample> sample;
        try {
            sample = detail::open_checked(file, options_.ingest);
            if (first_) check_same_width(sample->layout, *first_, file.string());
        } catch (const Error& e) {
            if (!options_.ingest.skip_bad) throw;
            report_.bad.push_back({file, e.what()});
            return std::nullopt;
        }
        first_ = sample->layout;
        auto prototype =
            detail::ref_prototype(options_.ingest, writer_.refs(), sample->layout.rows);
        prototype.metadata["file"] = name_of_file(file);
        auto ref =
            detail::put_or_adopt(store_, std::move(prototype), *sample, options_.ingest.link);
        writer_.append(ref);
        ++report_.added;
        report_.bytes += detail::bytes_of(*sample);
        return ref;
    }

    Sink& store_;
    std::filesystem::path dir_;
    StreamIngestOptions options_;
    std::unordered_set<std::string> known_;  // files that are in the stream, or bad
    std::optional<FeatureLayout> first_;
    StreamIngestReport report_;
    ManifestStreamWriter writer_;  // last: its constructor fills what is above
};

}  // namespace eyas
