// ranks [--shape S|M|tiny] [--tokens T] [--ttt K] [--steps N] [--ranks R] [--bucket-bytes B]
// [--port P]: trains on R samples a step, in one process with R threads and in R processes with one
// thread each, joined by Gloo on this machine; prints the speed of both, and which share of the
// gradients' reduction happened while the model computed. Each of the R processes has a core of its
// own, as mpirun gives them.
#include <omp.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <filesystem>
#include <stdexcept>
#include <vector>

#include "bench/timing.hpp"
#include "bench/trainer/shape.hpp"
#include "eyas/collective/gloo.hpp"
#include "eyas/model/eagle3.hpp"
#include "eyas/trainer/trace.hpp"
#include "eyas/trainer/trainer.hpp"

namespace {
using namespace eyas;

/// Sample n of R, again and again: of a step each rank takes those of its number.
class Repeated {
public:
    struct Position {
        std::int64_t epoch = 0, batch = 0;
    };
    Repeated(std::vector<Batch> batches, std::int64_t total)
        : batches_(std::move(batches)), total_(total) {}
    const Batch* next() {
        return &batches_[static_cast<std::size_t>(position_.batch++) % batches_.size()];
    }
    void seek(Position p) { position_ = p; }
    Position position() const { return position_; }
    std::int64_t batches_per_epoch() const { return total_; }
    double stall_seconds() const { return 0; }
    bool interrupted() const { return false; }
    void acknowledge(Position, std::int64_t) {}

private:
    std::vector<Batch> batches_;
    std::int64_t total_;
    Position position_;
};
static_assert(BatchSource<Repeated>);

/// What a process found.
struct Figures {
    double step_seconds = 0;            // median, without the first
    double norm = 0;                    // of the last gradient
    double weights = 0;                 // sum of magnitudes
    double reduce = 0, overlapped = 0;  // seconds of reductions, and of those while computing
};

/// Seconds of the spans whose names begin with `name`, as [begin, end).
std::vector<std::pair<double, double>> spans_of(const Json& trace, const std::string& name) {
    std::vector<std::pair<double, double>> spans;
    for (const auto& e : trace) {
        if (!e.at("name").get<std::string>().starts_with(name) || e.at("ph") == "M") continue;
        const auto at = e.at("ts").get<double>() / 1e6;
        if (e.at("ph") == "B")
            spans.emplace_back(at, at);
        else
            spans.back().second = at;
    }
    return spans;
}

void add_overlap(const std::filesystem::path& file, Figures& f) {
    const auto trace = read_json_file(file);
    const auto computing = spans_of(trace, "forward and backward");
    for (const auto& [begin, end] : spans_of(trace, "reduce bucket")) {
        f.reduce += end - begin;
        for (const auto& [from, to] : computing)
            f.overlapped += std::max(0.0, std::min(end, to) - std::max(begin, from));
    }
}

/// The calling thread, and those that it starts, on the n-th core that this process may use.
void bind_to_core(int n) {
    cpu_set_t mine, one;
    CPU_ZERO(&one);
    if (::sched_getaffinity(0, sizeof mine, &mine) != 0) return;
    for (int core = 0; core < CPU_SETSIZE; ++core)
        if (CPU_ISSET(core, &mine) && n-- == 0) CPU_SET(core, &one);
    if (CPU_COUNT(&one) == 1) ::sched_setaffinity(0, sizeof one, &one);
}

Figures train(const bench::Arguments& a, const Rendezvous& r, int threads) {
    if (r.world > 1) bind_to_core(r.rank);
    omp_set_num_threads(threads);
    const auto& shape = bench::step_shapes().at(a.text("shape"));
    const std::int64_t tokens = a.number("tokens"), steps = a.number("steps") + 1;
    const int samples = static_cast<int>(a.number("ranks"));
    const auto head = bench::random_tensor({shape.V, shape.D}, 1);
    Eagle3Options options;
    options.ttt_length = a.number("ttt");
    const auto model = std::make_unique<Eagle3<Cpu, F32>>(bench::config_of(shape, tokens), options,
                                                          bench::first_tokens(shape.V, shape.W),
                                                          FrozenTarget{head, head}, 1);
    std::vector<bench::BenchBatch> mine;
    for (int s = r.rank; s < samples; s += r.world)
        mine.emplace_back(shape, tokens, tokens, head, 2 + static_cast<unsigned>(s));
    std::vector<Batch> batches;
    for (const auto& b : mine) batches.push_back(b.batch);

    const auto file = std::filesystem::temp_directory_path() /
                      ("eyas-bench-ranks-" + std::to_string(::getpid()) + ".json");
    Figures f;
    {
        TraceRecorder recorder(file, r.rank);
        TrainerOptions o;
        o.accumulation = samples / r.world;
        o.log_interval = 0;
        o.trace = &recorder;
        o.bucket_bytes = a.number("bucket-bytes");
        Trainer<Eagle3<Cpu, F32>, Collective<Gloo>> trainer(*model, o, Collective<Gloo>(r));
        Repeated data(batches, steps * o.accumulation);
        std::vector<double> times;
        auto last = std::chrono::steady_clock::now();
        trainer.run(data, {.on_step = [&](const StepRecord& s) {
                        const auto now = std::chrono::steady_clock::now();
                        times.push_back(std::chrono::duration<double>(now - last).count());
                        last = now;
                        f.norm = s.grad_norm;
                    }});
        times.erase(times.begin());  // warms up
        std::ranges::sort(times);
        f.step_seconds = times[times.size() / 2];
    }
    for (const auto& p : model->parameters())
        for (const auto w : p.value.as<float>()) f.weights += std::abs(static_cast<double>(w));
    add_overlap(file, f);
    std::filesystem::remove(file);
    return f;
}

/// `world` processes with `threads` threads each; what rank 0 found. Throws where ranks end apart.
Figures in_processes(const bench::Arguments& a, int world, int threads) {
    std::fflush(stdout);
    std::vector<int> ends;
    std::vector<pid_t> processes;
    for (int rank = 0; rank < world; ++rank) {
        int ends_of_pipe[2];
        if (::pipe(ends_of_pipe) != 0) throw std::runtime_error("no pipe");
        const auto pid = ::fork();
        if (pid == 0) {
            try {
                const auto f =
                    train(a,
                          {rank, world, "127.0.0.1", static_cast<std::uint16_t>(a.number("port")),
                           std::chrono::minutes(10)},
                          threads);
                ::_exit(::write(ends_of_pipe[1], &f, sizeof f) == sizeof f ? 0 : 1);
            } catch (const std::exception& e) {
                std::fprintf(stderr, "ranks: %s\n", e.what());
            }
            ::_exit(1);
        }
        ::close(ends_of_pipe[1]);
        ends.push_back(ends_of_pipe[0]);
        processes.push_back(pid);
    }
    std::vector<Figures> all(static_cast<std::size_t>(world));
    for (std::size_t r = 0; r < all.size(); ++r) {
        const bool came = ::read(ends[r], &all[r], sizeof all[r]) == sizeof all[r];
        int status = 0;
        ::waitpid(processes[r], &status, 0);
        ::close(ends[r]);
        if (!came || status != 0) throw std::runtime_error("a rank failed");
        if (all[r].weights != all[0].weights) throw std::runtime_error("ranks ended apart");
    }
    return all[0];
}

void run(const bench::Arguments& a) {
    const int ranks = static_cast<int>(a.number("ranks"));
    const auto one = in_processes(a, 1, ranks), many = in_processes(a, ranks, 1);
    // Sums in another order: the same training but for rounding.
    if (std::abs(one.norm - many.norm) > 1e-3 * one.norm ||
        std::abs(one.weights - many.weights) > 1e-3 * one.weights)
        throw std::runtime_error("one process and several ended apart");
    const double tokens = static_cast<double>(a.number("tokens") * ranks);
    std::printf("shape %s  T %s  TTT %s  %d samples a step, buckets of %s bytes\n",
                a.text("shape").c_str(), a.text("tokens").c_str(), a.text("ttt").c_str(), ranks,
                a.text("bucket-bytes").c_str());
    std::printf("one process, %d threads    %8.3f s a step   %8.1f tokens/s\n", ranks,
                one.step_seconds, tokens / one.step_seconds);
    std::printf("%d processes, one thread   %8.3f s a step   %8.1f tokens/s\n", ranks,
                many.step_seconds, tokens / many.step_seconds);
    std::printf("reduction                 %8.3f s a step, %.0f %% of it while computing\n",
                many.reduce / static_cast<double>(a.number("steps") + 1),
                many.reduce > 0 ? 100 * many.overlapped / many.reduce : 0);
}
}  // namespace

int main(int argc, char** argv) {
    try {
        run({argc,
             argv,
             {{"shape", "S"},
              {"tokens", "512"},
              {"ttt", "7"},
              {"steps", "5"},
              {"ranks", "2"},
              {"bucket-bytes", "4194304"},
              {"port", "29517"}}});
    } catch (const std::exception& e) {
        std::fprintf(stderr, "ranks: %s\n", e.what());
        return 1;
    }
}
