#pragma once
#include <omp.h>

#include <atomic>
#include <cstdint>
#include <map>
#include <utility>

#include "bench/timing.hpp"
#include "eyas/device/cpu.hpp"

// Where a step's time goes: a device that is Cpu with a clock in it, so that the model that is
// timed is the one that trains.
namespace eyas::bench {

/// Time on the clock, and operations, of one kind of work.
struct Work {
    double seconds = 0, flops = 0;
};

/// Products by what they are: (rows of the weight, columns of the weight, which of the three
/// products of a linear layer), and loops. One thread drives the device that fills it.
struct StageClock {
    enum class Product { Forward, Input, Weight };
    std::map<std::pair<std::pair<std::int64_t, std::int64_t>, Product>, Work> products;
    Work attention, loops;
    std::atomic<bool> multiplies = false;  // the loop under way runs products: attention

    void clear() {
        products.clear();
        attention = loops = {};
    }
};

/// Cpu, with its time told to a StageClock that must outlive it.
class TimedCpu : public Cpu {
public:
    TimedCpu() = default;  // for planning: counts nothing
    explicit TimedCpu(StageClock& clock) : clock_(&clock) {}

    template <class F>
    void for_each(std::int64_t n, F f) const {
        timed_loop([&] { Cpu::for_each(n, f); });
    }
    template <class F>
    void for_each_row(std::int64_t rows, F f) const {
        timed_loop([&] { Cpu::for_each_row(rows, f); });
    }
    template <class F>
    double sum(std::int64_t n, F f) const {
        double s = 0;
        timed_loop([&] { s = Cpu::sum(n, f); });
        return s;
    }

    template <class T>
    void matmul(const Matmul<T, float>& x) const {
        if (!clock_ || omp_in_parallel()) {
            if (clock_) clock_->multiplies = true;
            return Cpu::matmul(x);
        }
        const double t = seconds_of([&] { Cpu::matmul(x); });
        using P = StageClock::Product;
        const auto kind = x.op_a == Op::Transposed   ? P::Weight
                          : x.op_b == Op::Transposed ? P::Forward
                                                     : P::Input;
        const auto out = kind == P::Weight    ? x.m
                         : kind == P::Forward ? x.n
                                              : x.k,
                   in = kind == P::Weight    ? x.n
                        : kind == P::Forward ? x.k
                                             : x.n;
        add(clock_->products[{{out, in}, kind}], t, 2.0 * static_cast<double>(x.m * x.n * x.k));
    }

    template <class T>
    void matmul(const PackedMatmul<T>& x) const {
        if (!clock_) return Cpu::matmul(x);
        const double t = seconds_of([&] { Cpu::matmul(x); });
        add(clock_->products[{{x.n, x.k}, StageClock::Product::Forward}], t,
            2.0 * static_cast<double>(x.m * x.n * x.k));
    }

private:
    static void add(Work& w, double seconds, double flops) {
        w.seconds += seconds;
        w.flops += flops;
    }

    template <class F>
    void timed_loop(const F& loop) const {
        if (!clock_ || omp_in_parallel()) return loop();
        clock_->multiplies = false;
        const double t = seconds_of(loop);
        add(clock_->multiplies ? clock_->attention : clock_->loops, t, 0);
    }

    StageClock* clock_ = nullptr;
};
static_assert(PackingDevice<TimedCpu>);

}  // namespace eyas::bench
