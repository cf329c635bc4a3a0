// cuda_check [--may-skip] ops | golden DIR... | graphs DIR... | cudnn DIR...: the CUDA device on a
// GPU, beside Cpu's ops and the reference's traces; graphs: with steps that are replayed, which
// some must have been; cudnn: with attention by cuDNN, which must have taken calls. Exit status 1
// where something differs or there is no GPU; with --may-skip 0 where there is none.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "compare_trace.hpp"
#include "eyas/device/cuda.cuh"
#include "eyas/ops/block/all.hpp"
#include "op_parity.hpp"
#ifdef EYAS_CHECK_CUDNN
#include "examples/cli/cudnn/attention.hpp"
#endif

namespace {

/// Cuda with attention in strips of 64 rows.
struct ShortStrips : eyas::Cuda {
    static constexpr std::string_view name = "cuda, short strips";
    static constexpr std::int64_t attention_tile = 1;
};

/// More than the ring of pinned memory holds, twice; the array changes when upload() is back.
void uploads(const eyas::Cuda& cuda, eyas::golden::Report& report) {
    std::vector<unsigned> from(25 << 20), got(from.size());  // 100 MiB
    const auto bytes = static_cast<std::int64_t>(from.size() * sizeof(unsigned));
    eyas::Tensor on_gpu(eyas::DType::U8, {bytes}, cuda.memory());
    auto* to = on_gpu.mutable_view().data;
    double differ = 0;
    for (unsigned round = 1; round <= 2; ++round) {
        const auto value = [&](std::size_t i) {
            return static_cast<unsigned>(i) * 2654435761u ^ round;
        };
        for (std::size_t i = 0; i < from.size(); ++i) from[i] = value(i);
        cuda.zero(to, on_gpu.view().size_bytes());
        cuda.upload(from.data(), to, on_gpu.view().size_bytes());
        std::fill(from.begin(), from.end(), 0u);
        cuda.download(to, got.data(), on_gpu.view().size_bytes());
        for (std::size_t i = 0; i < got.size(); ++i) differ += got[i] != value(i);
    }
    report.check("cuda", "uploads through the ring", differ, 0);
}

int ops() {
    eyas::golden::Report report;
    const eyas::Cuda cuda;
    uploads(cuda, report);
    eyas::test::compare_ops<float>(cuda, report);
    eyas::test::compare_ops<eyas::BFloat16>(cuda, report);
    const ShortStrips strips;
    eyas::test::compare_ops<float>(strips, report);
    eyas::test::compare_ops<eyas::BFloat16>(strips, report);
    std::printf("%d passed, %d failed\n", report.passed(), report.failed());
    return report.failed() ? 1 : 0;
}

int golden(const std::vector<std::string>& directories) {
    return eyas::golden::compare_traces<eyas::Cuda>({directories.begin(), directories.end()});
}

/// The backward of RMSNorm allocates: so a graph that was launched had memory.
int by_graphs(const std::vector<std::string>& directories) {
    eyas::golden::Trace::replay_steps = true;
    const int status = golden(directories);
    std::uint64_t bytes = 0;
    eyas::detail::check_cuda(cudaDeviceGetGraphMemAttribute(0, cudaGraphMemAttrUsedMemHigh, &bytes),
                             "cudaDeviceGetGraphMemAttribute");
    std::printf("graphs: up to %llu bytes\n", static_cast<unsigned long long>(bytes));
    return status ? status : bytes == 0;
}

int by_cudnn([[maybe_unused]] const std::vector<std::string>& directories) {
#ifdef EYAS_CHECK_CUDNN
    const eyas::Cuda cuda;  // its context is the one of every model
    cuda.attend_by(eyas::cli::cudnn_attention(cuda.ordinal()));
    const int status = golden(directories);
    std::printf("attention: %s\n", cuda.attention_use().text().c_str());
    return status ? status : cuda.attention_use().taken == 0;
#else
    std::printf("SKIPPED: built without cuDNN or the headers of cudnn-frontend\n");
    return 0;
#endif
}

}  // namespace

int main(int argc, char** argv) {
    std::vector<std::string> words(argv + 1, argv + argc);
    const bool may_skip = !words.empty() && words[0] == "--may-skip";
    if (may_skip) words.erase(words.begin());
    try {
        { const eyas::Cuda any; }
    } catch (const std::exception& e) {
        std::printf("SKIPPED: nothing was run on a GPU. %s\n", e.what());
        return may_skip ? 0 : 1;
    }
    try {
        if (words.size() == 1 && words[0] == "ops") return ops();
        const std::string what = words.size() > 1 ? words[0] : "";
        if (!what.empty()) words.erase(words.begin());
        if (what == "golden") return golden(words);
        if (what == "graphs") return by_graphs(words);
        if (what == "cudnn") return by_cudnn(words);
        std::fprintf(stderr,
                     "usage: cuda_check [--may-skip] ops | golden DIR... | graphs DIR... | cudnn "
                     "DIR...\n");
        return 2;
    } catch (const std::exception& e) {
        std::fprintf(stderr, "cuda_check: %s\n", e.what());
        return 1;
    }
}
