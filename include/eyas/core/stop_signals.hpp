#pragma once
#include <pthread.h>

#include <atomic>
#include <csignal>
#include <thread>

namespace eyas {

/// True once Ctrl-C (SIGINT) or SIGTERM came after catch_stop_signals(). Any thread.
inline std::atomic<bool>& stop_requested() {
    static std::atomic<bool> flag{false};
    return flag;
}

/// Makes the first SIGINT or SIGTERM set stop_requested(), so that work ends at its next safe
/// point; a second one ends the process as usual. Call it once, first in main, before any thread
/// exists.
///
/// No signal handler runs: the signals are blocked in every thread, and a thread of its own waits
/// for them. That matters beyond taste: a handler that runs on a thread inside a matrix product of
/// oneDNN 2.6 (AVX-512) was seen to corrupt the heap, whatever the handler does. So let no thread
/// that multiplies matrices take a signal with a handler.
inline void catch_stop_signals() {
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &signals, nullptr);
    std::thread([signals] {
        int number = 0;
        sigwait(&signals, &number);
        stop_requested().store(true);
        sigwait(&signals, &number);
        std::signal(number, SIG_DFL);
        std::raise(number);
        pthread_sigmask(SIG_UNBLOCK, &signals, nullptr);
    }).detach();
}

}  // namespace eyas
