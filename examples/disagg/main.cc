// Two pools, one program: what this process does follows from its environment (settings.hpp).
//   producer    puts feature files into a store and publishes a manifest
//   consumer    waits for the manifest and trains from the store
//   colocated   trains straight from the feature files
// Consumer and colocated are the same pipeline with another store type.
#include <cstdio>
#include <exception>
#include <eyas/core/stop_signals.hpp>
#include <eyas/eyas.hpp>
#include <eyas/ingest/handshake.hpp>

#include "settings.hpp"

namespace {
using namespace eyas;
using Model = Eagle3<Cpu, F32>;
static_assert(std::same_as<Pipeline<Store<SharedDirectory>, Trainer<Model>>::trainer_type,
                           Pipeline<Store<LocalFiles>, Trainer<Model>>::trainer_type>);

Store<SharedDirectory> open_shared(const disagg::Settings& s) {
    StorePolicy policy;
    policy.auth_token = s.auth_token;
    return Store<SharedDirectory>({.root = s.store_root, .store_id = s.store_id}, policy);
}

void produce(const disagg::Settings& s) {
    const ManifestHandshake handshake{s.manifest};
    if (handshake.is_done()) {  // a consumer that was started again may be reading it already
        std::printf("[producer] %s is complete: nothing to do\n", s.manifest.c_str());
        return;
    }
    handshake.begin();
    try {
        auto store = open_shared(s);
        const auto report =
            ingest(store, s.features, {.run_id = s.store_id}, [&](const IngestProgress& p) {
                if (p.done % static_cast<std::size_t>(s.log_interval) == 0 || p.done == p.total)
                    std::printf("[producer] %zu/%zu samples, %.1f MB\n", p.done, p.total,
                                static_cast<double>(p.bytes) / 1e6);
                std::fflush(stdout);
                if (stop_requested())
                    throw ResourceError("interrupted", s.manifest, "Start the producer again");
            });
        write_manifest(s.manifest, report.manifest);
        handshake.done();
    } catch (const std::exception& e) {
        handshake.failed(e.what());
        throw;
    }
}

template <class S>
void train(S& store, const Manifest& manifest, const disagg::Settings& s) {
    const HfWeights target(s.target);
    const auto config = read_model_config(s.draft_config);
    const auto map =
        s.vocab_map.empty() ? identity_vocab_map(config.vocab_size) : load_vocab_map(s.vocab_map);
    Model model(config, {.ttt_length = s.ttt_length}, map, FrozenTarget::of(target), 0);
    PipelineOptions options;
    options.trainer.run_dir = s.out;
    options.trainer.max_steps = s.max_steps;
    options.trainer.log_interval = s.log_interval;
    options.trainer.schedule.base_rate = s.learning_rate;
    Pipeline pipeline(store, manifest, model, options);
    const auto* role = s.role.c_str();
    const auto result = pipeline.run(
        {.on_step =
             [&](const StepRecord&) {
                 if (stop_requested()) pipeline.trainer().request_stop();
             },
         .on_log =
             [&](const LogRecord& r) {
                 std::printf(
                     "[%s] step %ld/%ld  loss %.4f  accuracy %.3f  %.0f tokens/s  stall %.1f %%\n",
                     role, r.step, r.last_step, r.loss, r.accuracy[0], r.tokens_per_second,
                     r.stall_percent);
                 std::fflush(stdout);
             }});
    std::printf("[%s] %s at step %ld: %s\n", role, result.stopped ? "stopped" : "done", result.step,
                result.checkpoint ? result.checkpoint->c_str() : "no checkpoint");
}

void consume(const disagg::Settings& s) {
    std::printf("[consumer] waiting for %s.done\n", s.manifest.c_str());
    std::fflush(stdout);
    if (!ManifestHandshake{s.manifest}.wait(std::chrono::seconds(s.wait_seconds),
                                            [] { return !stop_requested(); }))
        return;
    auto store = open_shared(s);
    train(store, read_manifest(s.manifest), s);
}

void colocated(const disagg::Settings& s) {
    Store<LocalFiles> store({.root = s.features});
    train(store, scan_features(s.features), s);
}
}  // namespace

int main() {
    catch_stop_signals();
    try {
        const auto s = disagg::Settings::from_environment();
        if (s.role == "producer")
            produce(s);
        else if (s.role == "consumer")
            consume(s);
        else
            colocated(s);
        return stop_requested() ? 1 : 0;
    } catch (const std::exception& e) {
        std::fprintf(stderr, "disagg: %s\n", e.what());
        return 1;
    }
}
