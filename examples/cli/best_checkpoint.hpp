#pragma once
#include <cstdint>
#include <cstdio>
#include <filesystem>

#include "eyas/core/file.hpp"
#include "eyas/core/json.hpp"
#include "eyas/evaluate/evaluate.hpp"

namespace eyas::cli {

/// The checkpoint of the best held-out evaluation of a run, in a directory that keeps only that.
class BestCheckpoint {
public:
    /// Goes on from what an earlier run left there. An empty directory: nothing is kept.
    void open(const std::filesystem::path& directory) {
        directory_ = directory;
        best_ = 0;
        if (!directory_.empty() && std::filesystem::exists(record()))
            best_ = required<double>(read_json_file(record()), figure_name, record().string());
    }

    bool is_better(const Evaluation& e) const {
        return !directory_.empty() && e.expected_tokens_per_pass() > best_;
    }

    /// Every rank calls it; rank 0 writes.
    template <class T>
    void keep(const Evaluation& e, std::int64_t step, T& trainer, bool writes) {
        trainer.save_copy(directory_);
        best_ = e.expected_tokens_per_pass();
        if (!writes) return;
        write_text_file(record(), Json{{"step", step}, {figure_name, best_}}.dump(2) + "\n");
        std::printf("best so far, kept in %s\n", directory_.c_str());
    }

private:
    std::filesystem::path record() const { return directory_ / "best.json"; }

    static constexpr const char* figure_name = "expected_tokens_per_pass";

    std::filesystem::path directory_;
    double best_ = 0;
};

}  // namespace eyas::cli
