#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace eyas {

/// One line of a training log: metrics over the interval since the last record and over all ranks.
struct LogRecord {
    std::int64_t step = 0;                                // optimizer steps done in all
    std::int64_t last_step = 0;                           // where the run will end; 0: not known
    std::int64_t epoch = 0;                               // of the next batch
    double loss = 0;                                      // sum_k decay^k * loss_k, mean over rows
    std::vector<double> step_loss, accuracy, acceptance;  // [K]
    double learning_rate = 0;                             // of the last step
    double grad_norm = 0;                                 // of the last step, before clipping
    double tokens_per_second = 0;                         // real tokens, all ranks
    double supervised_tokens_per_second = 0;
    double padding_percent = 0;     // share of the batches' rows that hold no token
    double stall_percent = 0;       // share of the interval that this rank waited for batches
    double seconds = 0;             // since run() began
    double checkpoint_seconds = 0;  // of them, those that training stood still for checkpoints
    double eta_seconds = 0;         // to last_step, at the pace of this run() so far
};

/// After every optimizer step, for progress bars.
struct StepRecord {
    std::int64_t step = 0, last_step = 0;
    double loss = 0;  // this rank's, mean over the step's rows
    double grad_norm = 0;
    double learning_rate = 0;
};

/// A checkpoint is on disk for good or was resumed from. `report` says which ones were passed over,
/// and why.
struct CheckpointRecord {
    std::filesystem::path path;
    std::int64_t step = 0;
    std::string report;
};

/// All optional; called on the thread that runs the trainer. What a callback throws ends the run.
/// on_save comes when the checkpoint is durable; training may be some steps further then.
struct TrainerCallbacks {
    std::function<void(const StepRecord&)> on_step = {};
    std::function<void(const LogRecord&)> on_log = {};
    std::function<void(const CheckpointRecord&)> on_save = {};
    std::function<void(const CheckpointRecord&)> on_resume = {};
};

struct TrainResult {
    std::int64_t step = 0;   // optimizer steps done in all, earlier runs included
    std::int64_t steps = 0;  // of this run()
    bool stopped = false;    // request_stop(), or an interrupted wait for data, ended it
    std::int64_t left_over =
        0;  // batches at the end of a stream that make no whole step: untrained
    double seconds = 0;
    double checkpoint_seconds = 0;  // of them, those that training stood still for checkpoints
    std::optional<std::filesystem::path> checkpoint;  // the last one, where a run directory is set
    std::optional<LogRecord> last_log;
};

}  // namespace eyas
