// golden_parity DIR...: runs every reference trace (trace_*.json) in the given directories through
// eyas and compares losses, metrics, gradients and 20-step trajectories.
#include <algorithm>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <vector>

#include "compare_trace.hpp"

int main(int argc, char** argv) {
    if (argc < 2) {
        std::fprintf(
            stderr,
            "usage: golden_parity DIR...   (directories with trace_*.json and .safetensors)\n");
        return 2;
    }
    eyas::golden::Report report;
    for (int i = 1; i < argc; ++i) {
        std::vector<std::filesystem::path> files;
        std::error_code error;
        for (const auto& e : std::filesystem::directory_iterator(argv[i], error))
            if (e.path().extension() == ".json" &&
                e.path().filename().string().starts_with("trace_"))
                files.push_back(e.path());
        if (files.empty()) report.fail(argv[i], "no trace_*.json here");
        std::ranges::sort(files);
        for (const auto& f : files) try {
                eyas::golden::compare_trace(eyas::golden::Trace(f), report);
            } catch (const std::exception& e) {
                report.fail(f.filename().string(), e.what());
            }
    }
    std::printf("%d passed, %d failed\n", report.passed(), report.failed());
    return report.failed() ? 1 : 0;
}
