#pragma once
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "eyas/core/error.hpp"
#include "eyas/core/span.hpp"
#include "eyas/device/mark.hpp"
#include "eyas/optimizer/clip.hpp"
#include "eyas/trainer/ordered_work.hpp"
#include "eyas/trainer/shards.hpp"

namespace eyas::detail {

/// Throws ContractError where several ranks would have to join what their collective cannot reach.
template <Device D, class C>
void check_exchange(const D& device, const C& collective) {
    if (collective.world() > 1 && !collective.reaches(device))
        throw ContractError(
            "this device has memory of its own, which the collective of its " +
                std::to_string(collective.world()) + " ranks does not reach",
            "Trainer on " + std::string(D::name),
            "Use a collective made for this device (Nccl for Cuda), or train in one process");
}

/// Joins the gradients of all ranks and spreads the updated parameters, bucket by bucket, on a
/// thread of its own: a bucket's gradients are reduced as soon as they are final, while the model
/// computes the others; a bucket's values are gathered while the optimizer updates the next.
/// From forward_backward() to the end of finish(), and in update(), that thread alone uses the
/// collective. One thread drives it, the one that drives the device, too: each bucket takes along
/// how far the device's work has come (mark_of), behind which the collective orders its own. In a
/// world of one it does nothing and has no thread.
///
/// All ranks make the same calls, and their models tell of final gradients in the same order.
template <Device D, class C>
class GradientExchange {
public:
    /// All must outlive it, and `trace`, where there is one. `device`: the model's.
    GradientExchange(const D& device, const Shards& shards, C& collective, SpanListener* trace)
        : device_(device),
          shards_(shards),
          collective_(collective),
          trace_(trace),
          buckets_of_(shards.parameters().size()),
          on_final_([this](std::size_t parameter) { is_final(parameter); }) {
        for (std::size_t b = 0; b < shards_.buckets().size(); ++b)
            for (const auto& piece : shards_.buckets()[b].pieces)
                buckets_of_[piece.parameter].push_back(b);
    }
    GradientExchange(const GradientExchange&) = delete;
    GradientExchange& operator=(const GradientExchange&) = delete;

    /// The time of one optimizer step. Where it ends early, by an error, what has not begun is not
    /// exchanged, and the gradients are free when it is gone.
    class Step {
    public:
        explicit Step(GradientExchange& exchange) : exchange_(exchange) {}
        Step(const Step&) = delete;
        Step& operator=(const Step&) = delete;
        ~Step() { exchange_.work_.drop(); }

    private:
        GradientExchange& exchange_;
    };

    /// The model's, of the last batch of a step: what it adds to the gradients completes them.
    template <DraftModel M>
    decltype(auto) forward_backward(M& model, const Batch& batch, float scale) {
        is_final_.assign(shards_.parameters().size(), false);
        missing_.clear();
        for (const auto& b : shards_.buckets()) missing_.push_back(b.pieces.size());
        if constexpr (TellsFinalGradients<M>)
            if (shards_.shared()) return model.forward_backward(batch, scale, on_final_);
        return model.forward_backward(batch, scale);
    }

    /// Of the gradients summed over ranks: the norm of them all, and whether any rank said `bad`.
    /// The same everywhere, and the same bits whenever the gradients are.
    struct Joined {
        bool bad;
        double norm;
    };

    /// After it: all gradients are final. Returns when this rank's shards hold the sums. Throws
    /// what the collective throws.
    Joined finish(bool bad) {
        for (std::size_t i = 0; i < is_final_.size(); ++i) is_final(i);
        wait("wait for gradients");
        std::array sums{bad ? 1.0 : 0.0, sum_of_squares(device_, shards_.owned())};
        collective_.all_reduce(std::span<double>(sums));
        return {sums[0] > 0, std::sqrt(sums[1])};
    }

    /// One step of the optimizer over what this rank owns; then every rank has all new values.
    /// Throws what the collective throws: some values are new then and some are not.
    template <class Optimizer>
    void update(Optimizer& optimizer, double rate, float scale) {
        std::size_t next = 0;
        const auto gather_up_to = [&](std::size_t slices) {
            for (; next < shards_.buckets().size() && shards_.slices_end(next) <= slices; ++next)
                gather(next);
        };
        {
            const Span span(trace_, SpanListener::Lane::Trainer, "update");
            optimizer.step(rate, scale, [&](std::size_t i) { gather_up_to(i + 1); });
        }
        gather_up_to(shards_.slices().size());
        wait("wait for values");
    }

private:
    void is_final(std::size_t parameter) {
        if (is_final_[parameter]) return;
        is_final_[parameter] = true;
        for (const auto b : buckets_of_[parameter])
            if (--missing_[b] == 0) reduce(b);
    }

    void reduce(std::size_t b) {
        work_.post([this, b, after = mark_of(device_)] {
            const auto& bucket = shards_.buckets()[b];
            const auto span = exchange_span("reduce bucket", b);
            collective_.reduce_scatter(bucket.gradients, bucket.shards, after);
        });
    }
    void gather(std::size_t b) {
        work_.post([this, b, after = mark_of(device_)] {
            const auto& bucket = shards_.buckets()[b];
            const auto span = exchange_span("gather bucket", b);
            if (bucket.values.dtype == DType::BF16)
                collective_.all_gather(bucket.values.as<BFloat16>(), bucket.shards, after);
            else
                collective_.all_gather(bucket.values.as<float>(), bucket.shards, after);
        });
    }
    Span exchange_span(const char* name, std::size_t bucket) const {
        return {trace_, SpanListener::Lane::Exchange, name, static_cast<std::int64_t>(bucket)};
    }

    void wait(const char* what) {
        if (!shards_.shared()) return;
        const Span span(trace_, SpanListener::Lane::Trainer, what);
        work_.wait();
    }

    const D& device_;
    const Shards& shards_;
    C& collective_;
    SpanListener* trace_;
    std::vector<std::vector<std::size_t>> buckets_of_;  // of each parameter
    GradientIsFinal on_final_;
    std::vector<bool> is_final_;        // of each parameter, in this step
    std::vector<std::size_t> missing_;  // pieces of each bucket that are not final yet
    OrderedWork work_;
};

}  // namespace eyas::detail
