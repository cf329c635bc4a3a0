// cuda_check [--may-skip] ops | golden DIR...: the CUDA device on a GPU, beside Cpu's ops and the
// reference's traces. Exit status 1 where something differs or there is no GPU; with --may-skip 0
// where there is none.
#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "compare_trace.hpp"
#include "eyas/device/cuda.cuh"
#include "eyas/ops/block/all.hpp"
#include "op_parity.hpp"

namespace {

/// Cuda with attention in strips of 64 rows.
struct ShortStrips : eyas::Cuda {
    static constexpr std::string_view name = "cuda, short strips";
    static constexpr std::int64_t attention_tile = 1;
};

int ops() {
    eyas::golden::Report report;
    const eyas::Cuda cuda;
    eyas::test::compare_ops<float>(cuda, report);
    eyas::test::compare_ops<eyas::BFloat16>(cuda, report);
    const ShortStrips strips;
    eyas::test::compare_ops<float>(strips, report);
    eyas::test::compare_ops<eyas::BFloat16>(strips, report);
    std::printf("%d passed, %d failed\n", report.passed(), report.failed());
    return report.failed() ? 1 : 0;
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
        if (words.size() > 1 && words[0] == "golden")
            return eyas::golden::compare_traces<eyas::Cuda>({words.begin() + 1, words.end()});
        std::fprintf(stderr, "usage: cuda_check [--may-skip] ops | golden DIR...\n");
        return 2;
    } catch (const std::exception& e) {
        std::fprintf(stderr, "cuda_check: %s\n", e.what());
        return 1;
    }
}
