#pragma once
#include <atomic>
#include <csignal>

namespace eyas::cli {

/// Set by the first Ctrl-C or SIGTERM: work in progress ends at the next safe point and leaves what
/// can be resumed. A second Ctrl-C ends the process at once.
inline std::atomic<bool>& stop_flag() {
    static std::atomic<bool> flag{false};
    return flag;
}

inline void install_stop_handlers() {
    struct sigaction action {};
    action.sa_handler = [](int) { stop_flag().store(true); };
    action.sa_flags = static_cast<int>(SA_RESETHAND);  // the second one has its default effect
    sigaction(SIGINT, &action, nullptr);
    sigaction(SIGTERM, &action, nullptr);
}

}  // namespace eyas::cli
