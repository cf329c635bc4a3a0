#pragma once
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <optional>
#include <stdexcept>
#include <utility>
#include <vector>

#include "bench/timing.hpp"
#include "eyas/checkpoint/snapshot.hpp"
#include "eyas/trainer/trainer.hpp"

namespace eyas::bench {

/// One batch, again and again.
class SameBatch {
public:
    struct Position {
        std::int64_t epoch = 0, batch = 0;
    };
    SameBatch(const Batch& batch, std::int64_t steps) : batch_(batch), steps_(steps) {}

    const Batch* next() { return position_.batch++ < steps_ ? &batch_ : nullptr; }
    void seek(Position p) { position_ = p; }
    void acknowledge(Position, std::int64_t) {}
    Position position() const { return position_; }
    std::int64_t batches_per_epoch() const { return steps_; }
    double stall_seconds() const { return 0; }
    bool interrupted() const { return false; }

private:
    const Batch& batch_;
    std::int64_t steps_;
    Position position_;
};
static_assert(BatchSource<SameBatch>);

/// How long training stands still for a checkpoint: written at once, and written while it goes on;
/// beside a memcpy of as many bytes.
template <DraftModel M>
class SaveRows {
public:
    /// A checkpoint every `between` steps, `saves` of them, in a directory of their own in `dir`.
    SaveRows(M& model, const Batch& batch, const std::filesystem::path& dir, std::int64_t between,
             std::int64_t saves)
        : model_(model),
          batch_(batch),
          dir_(dir / "eyas-bench-saves"),
          between_(between),
          saves_(saves) {}

    void run() {
        copy_rows();
        const auto none = train(false, false), at_once = train(true, false),
                   meanwhile = train(true, true);
        std::printf("saves     stood still per checkpoint: %.4f s at once, %.4f s meanwhile\n",
                    at_once.stood, meanwhile.stood);
        std::printf(
            "          step between them: %.4f s without checkpoints, %.4f s at once, %.4f s "
            "meanwhile\n",
            none.step, at_once.step, meanwhile.step);
        std::printf("          all together, a step: %.4f s, %.4f s, %.4f s\n", none.all,
                    at_once.all, meanwhile.all);
    }

private:
    struct Seconds {
        double stood;  // still, per checkpoint
        double step;   // of the rest, per step
        double all;    // of everything, per step
    };

    /// Up to the step before the one at the end, whose checkpoint is never written meanwhile.
    Seconds train(bool saves, bool async) {
        std::filesystem::remove_all(dir_);
        const auto steps = between_ * (saves_ + 1);
        TrainerOptions o;
        o.log_interval = steps - 1;
        o.async_checkpoints = async;
        o.keep_checkpoints = 1;
        o.save_interval = saves ? between_ : 0;
        if (saves) o.run_dir = dir_;
        Trainer trainer(model_, o);
        SameBatch data(batch_, steps);
        const auto result = trainer.run(data);
        if (saves && read_checkpoint_state(*result.checkpoint).step != steps)
            throw std::runtime_error("the checkpoint is another");
        std::filesystem::remove_all(dir_);
        const auto& log = *result.last_log;
        const auto n = static_cast<double>(steps - 1);
        return {log.checkpoint_seconds / static_cast<double>(saves_),
                (log.seconds - log.checkpoint_seconds) / n, log.seconds / n};
    }

    void copy_rows() {
        AdamW<typename M::DeviceType> optimizer(model_.device(), model_.parameters());
        const CheckpointContent content{model_.parameters(), model_.vocab_map(), model_.config(),
                                        optimizer.state()};
        CheckpointSnapshot snapshot;
        snapshot.reserve(content);
        Tensor from = Tensor::zeros(DType::U8, {static_cast<std::int64_t>(snapshot.bytes())}),
               to = Tensor::zeros(DType::U8, from.shape());
        const auto plain = times_of(
            [&] { std::memcpy(to.mutable_view().data, from.view().data, snapshot.bytes()); }, 5);
        std::optional<CheckpointContent> copy;
        const auto taken = times_of([&] { copy.emplace(snapshot.take(content)); }, 5);
        for (std::size_t i = 0; i < content.optimizer.size(); ++i)
            if (!std::ranges::equal(copy->optimizer[i].buffer.bytes(),
                                    content.optimizer[i].buffer.bytes()))
                throw std::runtime_error("the copy is wrong");
        std::printf("state     %.1f MB: memcpy %.4f s, copy of the state on all cores %.4f s\n",
                    static_cast<double>(snapshot.bytes()) / 1e6, plain.median, taken.median);
    }

    M& model_;
    const Batch& batch_;
    std::filesystem::path dir_;
    std::int64_t between_, saves_;
};

}  // namespace eyas::bench
