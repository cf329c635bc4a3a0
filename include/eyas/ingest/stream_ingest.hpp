#pragma once
#include <sys/stat.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "eyas/ingest/capture_done.hpp"
#include "eyas/ingest/ingest.hpp"
#include "eyas/sample/stream_writer.hpp"

namespace eyas {

struct StreamIngestOptions {
    IngestOptions ingest = {};
    /// Look for new files until this one exists (capture's CAPTURE.done); empty: one look.
    std::filesystem::path until = {};
    std::chrono::milliseconds interval{200};  // between two looks
    /// How long files that `until` counts may be missing: network file systems show names late.
    std::chrono::seconds patience{120};
    const std::atomic<bool>* stop = nullptr;  // ends it between two files; the stream stays open
};

struct StreamIngestReport {
    std::size_t added = 0;  // by this call
    std::size_t refs = 0;   // in the stream
    std::vector<BadFile> bad = {};
    std::uint64_t bytes = 0;  // of tensors put into the store
    bool stopped = false;     // the stop flag ended it; run it again to go on
};

namespace detail {
/// What tells a feature file from another one of its name: moving its directory keeps both.
struct FileState {
    std::int64_t bytes = 0, modified_ns = 0;

    friend bool operator==(const FileState&, const FileState&) = default;
};

inline FileState file_state(const std::filesystem::path& file) {
    struct stat st {};
    if (::stat(file.c_str(), &st) != 0) throw_errno("cannot stat", file);
    return {st.st_size, std::int64_t{st.st_mtim.tv_sec} * 1'000'000'000 + st.st_mtim.tv_nsec};
}

/// The state that a ref's metadata name; nothing in streams of earlier versions.
inline std::optional<FileState> recorded_state(const SampleRef& ref, const std::string& where) {
    if (!ref.metadata.contains("file_bytes")) return std::nullopt;
    return FileState{required<std::int64_t>(ref.metadata, "file_bytes", where),
                     required<std::int64_t>(ref.metadata, "file_mtime_ns", where)};
}
}  // namespace detail

/// Puts feature files into a store as they appear and tells each in a manifest stream as soon as
/// the store has it; ends the stream when the last one is in. Files that appear between two looks
/// are taken in lexicographic order of their paths; a sample's index is its place in the stream,
/// and its metadata name the file with its size and time, so a call with the stream of an earlier
/// one goes on where that ended (a sample that was put and not told is put again, as a newer
/// generation), and a file that only has the name of a told one is refused.
///
/// Files must appear whole (by rename), as capture's do. Bad files as in ingest(); the stream is
/// left open when this throws, the caller may mark the failure. Not for two threads.
template <class Sink>
class StreamIngest {
public:
    /// `dir` need not exist yet. Throws what the stream's writer does, and ContractError where the
    /// stream has ended and `dir` holds files that are not in it, or others of their names.
    StreamIngest(Sink& store, std::filesystem::path dir, const std::filesystem::path& stream,
                 ManifestStreamWriter::Options writing, StreamIngestOptions options)
        : store_(store),
          dir_(detail::absolute_lexical(dir)),
          options_(std::move(options)),
          writer_(stream, std::move(writing), [this](const SampleRef& r) { adopt(r); }) {
        if (writer_.finished()) check_nothing_is_new();
    }

    /// `progress` runs on the calling thread after each file; its total grows with what is found.
    StreamIngestReport run(const std::function<void(const IngestProgress&)>& progress = {}) {
        while (!writer_.finished() && !stopped()) {
            // Read first: what the look finds was there when this was.
            const auto end = options_.until.empty() ? DeclaredEnd{} : declared_end(options_.until);
            const bool whole = look(progress);
            if (whole && end && is_end(*end))
                writer_.finish();
            else if (!options_.until.empty())
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
        const auto where = "sample '" + ref.sample_id + "'";
        convention_(ref);
        known_.emplace(required<std::string>(ref.metadata, "file", where),
                       detail::recorded_state(ref, where));
        if (!first_ && !ref.feature_specs.empty())
            first_ = feature_layout(ref.feature_specs, where);
    }

    // Whether a look that found no more was the last one. A capture that has begun again since has
    // taken its marker away first; files beyond those it counts are then not the last.
    bool is_end(const DeclaredEnd& end) {
        if (!options_.until.empty() && declared_end(options_.until) != end) return false;
        if (known_.size() >= end.files) return true;
        const auto now = std::chrono::steady_clock::now();
        if (!missing_since_) missing_since_ = now;
        if (now - *missing_since_ >= options_.patience)
            throw TransportError("counts " + std::to_string(end.files) + " feature files, " +
                                     std::to_string(known_.size()) + " are there",
                                 options_.until.string(), "Capture again, then start this again");
        return false;
    }

    // Files that the stream does not know. Throws ContractError for one that is another than the
    // stream's of this name; each is looked at once.
    std::vector<std::filesystem::path> unknown_files() {
        std::vector<std::filesystem::path> fresh;
        for (auto& f : detail::feature_files_so_far(dir_)) {
            const auto known = known_.find(name_of_file(f));
            if (known == known_.end()) {
                fresh.push_back(std::move(f));
                continue;
            }
            const auto told = std::exchange(known->second, std::nullopt);
            if (told && *told != detail::file_state(f))
                throw ContractError("the stream has another file of this name", f.string(),
                                    "Name the directory that the stream was begun with, or another "
                                    "stream");
        }
        return fresh;
    }

    void check_nothing_is_new() {
        auto fresh = unknown_files();
        if (options_.ingest.skip_bad)  // those that were left out are no news
            std::erase_if(fresh, [this](const auto& f) { return !open_or_skip(f); });
        if (!fresh.empty())
            throw ContractError("the stream has ended, and " + std::to_string(fresh.size()) +
                                    " feature files are not in it, the first " + fresh[0].string(),
                                writer_.path().string(),
                                "Name another stream, or remove this one to begin again");
    }

    // Takes every new file; false when stopped on the way.
    bool look(const std::function<void(const IngestProgress&)>& progress) {
        const auto fresh = unknown_files();
        const auto total = known_.size() + fresh.size();
        for (const auto& file : fresh) {
            if (stopped()) return false;
            const auto ref = take(file);
            known_.emplace(name_of_file(file), std::nullopt);
            if (progress)
                progress({known_.size(), total, report_.bad.size(), report_.bytes,
                          ref ? &*ref : nullptr});
        }
        return true;
    }

    // Nothing for a bad file that may be left out.
    std::optional<detail::CheckedSample> open_or_skip(const std::filesystem::path& file) {
        try {
            auto sample = detail::open_checked(file, options_.ingest);
            if (first_) check_same_width(sample.layout, *first_, file.string());
            return sample;
        } catch (const Error& e) {
            if (!options_.ingest.skip_bad) throw;
            report_.bad.push_back({file, e.what()});
            return std::nullopt;
        }
    }

    std::optional<SampleRef> take(const std::filesystem::path& file) {
        const auto state = detail::file_state(file);  // of what is read, or of one before it
        const auto sample = open_or_skip(file);
        if (!sample) return std::nullopt;
        first_ = sample->layout;
        if (!options_.ingest.convention) options_.ingest.convention = captured_convention(dir_);
        auto prototype =
            detail::ref_prototype(options_.ingest, writer_.refs(), sample->layout.rows);
        convention_(prototype);  // before anything is put
        prototype.metadata["file"] = name_of_file(file);
        prototype.metadata["file_bytes"] = state.bytes;
        prototype.metadata["file_mtime_ns"] = state.modified_ns;
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
    // Files that are in the stream, or bad; with what is still to be compared.
    std::unordered_map<std::string, std::optional<detail::FileState>> known_;
    std::optional<std::chrono::steady_clock::time_point> missing_since_;
    std::optional<FeatureLayout> first_;
    CommonConvention convention_;
    StreamIngestReport report_;
    ManifestStreamWriter writer_;  // last: its constructor fills what is above
};

}  // namespace eyas
