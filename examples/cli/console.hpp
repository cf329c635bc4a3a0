#pragma once
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

namespace eyas::cli {

inline std::string duration_text(double seconds) {
    char text[32];
    if (seconds < 100)
        std::snprintf(text, sizeof text, "%.1f s", seconds);
    else
        std::snprintf(text, sizeof text, "%d:%02d min", static_cast<int>(seconds) / 60,
                      static_cast<int>(seconds) % 60);
    return text;
}

inline std::string bytes_text(double bytes) {
    char text[32];
    const char* units[] = {"B", "kB", "MB", "GB", "TB"};
    std::size_t u = 0;
    for (; bytes >= 1000 && u < 4; ++u) bytes /= 1000;
    std::snprintf(text, sizeof text, u ? "%.1f %s" : "%.0f %s", bytes, units[u]);
    return text;
}

/// ".377 .335 .306"
inline std::string rates_text(const std::vector<double>& rates) {
    std::string s;
    for (double r : rates) {
        char text[16];
        std::snprintf(text, sizeof text, "%s%.3f", s.empty() ? "" : " ", r);
        s += text;
    }
    return s;
}

/// A progress bar on stderr: redrawn in place on a terminal, a line now and then elsewhere.
class Progress {
public:
    Progress(std::string what, std::int64_t total) : what_(std::move(what)), total_(total) {}

    /// `done` of total (without a bar where that is 0: not known); `note` is free text after it.
    void show(std::int64_t done, const std::string& note = "") {
        const auto now = Clock::now();
        const bool last = total_ > 0 && done >= total_;
        if (!last && now - shown_ < (terminal_ ? std::chrono::milliseconds(100)
                                               : std::chrono::milliseconds(10'000)))
            return;
        shown_ = now;
        const double seconds = std::chrono::duration<double>(now - start_).count();
        if (total_ <= 0) {
            std::fprintf(stderr, "%s%s %lld  %s  %s%s", terminal_ ? "\r" : "", what_.c_str(),
                         static_cast<long long>(done), duration_text(seconds).c_str(), note.c_str(),
                         terminal_ ? "\x1b[K" : "\n");
            std::fflush(stderr);
            return;
        }
        const double fraction = static_cast<double>(done) / static_cast<double>(total_);
        const auto filled = static_cast<std::size_t>(fraction * width);
        const auto bar = std::string(filled, '#') + std::string(width - filled, '.');
        const auto left =
            done > 0 && !last ? ", " + duration_text(seconds / fraction - seconds) + " left" : "";
        std::fprintf(stderr, "%s%s [%s] %lld/%lld  %s%s  %s%s", terminal_ ? "\r" : "",
                     what_.c_str(), bar.c_str(), static_cast<long long>(done),
                     static_cast<long long>(total_), duration_text(seconds).c_str(), left.c_str(),
                     note.c_str(), terminal_ ? "\x1b[K" : "\n");
        if (last && terminal_) std::fprintf(stderr, "\n");
        std::fflush(stderr);
    }

    /// Clears the bar's line, so that other text can be printed.
    void interrupt() const {
        if (terminal_) std::fprintf(stderr, "\r\x1b[K");
    }

private:
    using Clock = std::chrono::steady_clock;
    static constexpr std::size_t width = 24;
    std::string what_;
    std::int64_t total_;
    bool terminal_ = isatty(STDERR_FILENO) != 0;
    Clock::time_point start_ = Clock::now(), shown_{};
};

}  // namespace eyas::cli
