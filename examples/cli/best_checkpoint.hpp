#pragma once
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <string>

#include "eyas/checkpoint/directory.hpp"
#include "eyas/core/file.hpp"
#include "eyas/core/json.hpp"
#include "eyas/evaluate/evaluate.hpp"

namespace eyas::cli {

/// The checkpoint of the best held-out evaluation of a run, in a directory that keeps only that:
/// by acceptance length, or where that is not measured by the expected tokens a target pass. And
/// how many evaluations in a row were no better.
class BestCheckpoint {
public:
    /// Goes on from what an earlier run left there; a record that is not of the checkpoint there
    /// (the run was killed between the two) counts for nothing. An empty directory: nothing is
    /// kept.
    void open(const std::filesystem::path& directory) {
        directory_ = directory;
        best_ = 0;
        if (directory_.empty() || !std::filesystem::exists(record())) return;
        const auto json = read_json_file(record());
        const auto there = checkpoint_directories(directory_);
        if (there.empty() ||
            step_of(there.front()) != required<std::int64_t>(json, "step", record().string()))
            return;
        for (const char* name : {length, expected})
            if (json.contains(name)) {
                best_ = required<double>(json, name, record().string());
                figure_ = name;
                return;
            }
        throw DataError("names no figure", record().string(), "Remove the directory");
    }

    /// Whether this evaluation is the best so far; counts it.
    bool hear(const Evaluation& e) {
        if (figure_ != name_of(e)) best_ = 0;  // of another kind: nothing to compare with
        const bool better = figure_of(e) > best_;
        without_better_ = better ? 0 : without_better_ + 1;
        if (better) best_ = figure_of(e), figure_ = name_of(e);
        return better;
    }
    std::int64_t without_better() const { return without_better_; }
    bool keeps() const { return !directory_.empty(); }

    /// The evaluation that was heard last. Every rank calls it; rank 0 writes.
    template <class T>
    void keep(std::int64_t step, T& trainer, bool writes) {
        trainer.save_copy(directory_);
        if (!writes) return;
        for (const auto& other : checkpoint_directories(directory_))  // of later steps, too
            if (step_of(other) != step) eyas::detail::discard_directory(other);
        write_text_file(record(), Json{{"step", step}, {figure_, best_}}.dump(2) + "\n");
        std::printf("best so far, kept in %s\n", directory_.c_str());
    }

private:
    static constexpr const char* length = "acceptance_length";
    static constexpr const char* expected = "expected_tokens_per_pass";

    static std::string name_of(const Evaluation& e) {
        return e.decoded.passes > 0 ? length : expected;
    }
    static double figure_of(const Evaluation& e) {
        return e.decoded.passes > 0 ? e.decoded.length() : e.expected_tokens_per_pass();
    }
    static std::optional<std::int64_t> step_of(const std::filesystem::path& checkpoint) {
        return eyas::detail::checkpoint_step(checkpoint.filename().string());
    }
    std::filesystem::path record() const { return directory_ / "best.json"; }

    std::filesystem::path directory_;
    std::string figure_;
    double best_ = 0;
    std::int64_t without_better_ = 0;
};

}  // namespace eyas::cli
