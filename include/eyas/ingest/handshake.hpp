#pragma once
#include <chrono>
#include <filesystem>
#include <functional>
#include <string>
#include <thread>

#include "eyas/core/error.hpp"
#include "eyas/core/file.hpp"

namespace eyas {

/// How a producer pool tells a consumer pool that a manifest is complete, through files beside it:
/// MANIFEST.done appears after the manifest, MANIFEST.failed (with the reason) instead when the
/// producer gave up. Names are the reference's (SpecForge training/disaggregated.py).
struct ManifestHandshake {
    std::filesystem::path manifest;

    std::filesystem::path marker(const char* suffix) const {
        auto p = manifest;
        p += suffix;
        return p;
    }

    bool is_done() const { return std::filesystem::exists(marker(".done")); }

    /// Producer, first: takes away what an earlier attempt left, so that no consumer believes it.
    void begin() const {
        if (manifest.has_parent_path()) eyas::create_directories(manifest.parent_path());
        for (const char* suffix : {".done", ".failed"}) std::filesystem::remove(marker(suffix));
        std::filesystem::remove(manifest);
    }
    /// Producer, last: the manifest is written.
    void done() const { write_text_file(marker(".done"), "done\n"); }
    /// Producer, instead of done().
    void failed(const std::string& reason) const {
        write_text_file(marker(".failed"), reason + "\n");
    }

    /// Consumer: returns once the manifest is complete. `keep_waiting` is asked several times a
    /// second and may return false to give up quietly (Ctrl-C); the result says whether the
    /// manifest is there. Throws TransportError when the producer failed or `timeout` passes first.
    bool wait(
        std::chrono::seconds timeout,
        const std::function<bool()>& keep_waiting = [] { return true; }) const {
        const auto deadline = std::chrono::steady_clock::now() + timeout;
        while (!is_done()) {
            if (std::filesystem::exists(marker(".failed")))
                throw TransportError("the producer failed: " + read_text_file(marker(".failed")),
                                     manifest.string(),
                                     "Repair and start the producer again, then this consumer");
            if (std::chrono::steady_clock::now() >= deadline)
                throw TransportError(
                    "no producer finished within " + std::to_string(timeout.count()) + " s",
                    marker(".done").string(),
                    "Check that the producer runs and shares this directory");
            if (!keep_waiting()) return false;
            std::this_thread::sleep_for(std::chrono::milliseconds(100));
        }
        return true;
    }
};

}  // namespace eyas
