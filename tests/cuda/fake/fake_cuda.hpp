#pragma once
#include <cuda_runtime_api.h>

#include <cstddef>
#include <functional>
#include <string>
#include <vector>

/// A CUDA runtime and a cuBLASLt on the host, linked instead of theirs, for tests: results are
/// real, and what a GPU would forgive or answer with nonsense is told.
///
/// - Work of a stream waits until somebody waits for it (a synchronisation, or a stream that waits
///   for its event), so what needed such a wait and had none computes with what was there before.
///   Copies from pinned memory read it then, from pageable memory at once; copies to the host leave
///   NaN until then.
/// - Device memory is closed to the host, starts as NaN (up to 4 MiB), ends at a closed page and
///   is never given twice. A kernel or a host's loop that leaves its arrays ends the process with
///   its name.
/// - While a stream captures, its work goes to a graph; each launch does all of it in order. Memory
///   that was allocated in the capture starts as NaN each time and is closed to everything before
///   its allocation and after its release.
/// - Told as misuse (`failures`): ranges outside of live memory, also at the time when the work is
///   done; pinned memory that changes or is freed under a copy; memory that is released twice;
///   handles that are unknown or destroyed twice; launches that no GPU takes, on another GPU's
///   stream, or after a call whose error was not taken; waiting for an event that was never
///   recorded; in a capture, waiting, events, copies from and to the host, releases of memory
///   from before, and graphs that do not release theirs; products whose shapes, strides, alignment
///   or algorithm do not fit. What is not released is told by `alive`.
/// - The process ends with status 1 where misuse was told and not taken, or something is alive.
///
/// Any thread may call any of these and of CUDA's functions; a stream's work is done by who waits.
namespace eyas::fake_cuda {

/// GPUs that there are; 1 at first.
void devices(int count);
/// What cudaGetDeviceProperties says; 9.0 at first.
void compute_capability(int major, int minor);
/// Does work at once, as a fast GPU may. Nothing may change.
void eager(bool yes);
/// Blocks and threads of kernels from last to first. Nothing may change.
void backwards(bool yes);
/// cuBLASLt finds no algorithm for any product.
void no_algorithms(bool yes);

/// The nth call from now (1: the next) of an entry point does nothing and returns `status`; one
/// that waits has waited, what it releases is gone. Besides the names of functions there are
/// "kernel launch", whose status cudaGetLastError gives, and "kernel", whose fault comes when it
/// runs and stays: all later calls return it. As CUDA does, the thread's next cudaGetLastError
/// gives what a call returned, once.
void fail(const std::string& call, int nth, int status);
/// Whether that call has come.
bool failed();
/// Forgets what was planned, the stuck fault and the counts.
void reset();
/// Calls of an entry point since reset().
int calls(const std::string& call);
/// The entry points that were called since reset().
std::vector<std::string> called();

/// Takes what was told as misuse.
std::vector<std::string> failures();
/// What was not released: memory, streams, events, handles, graphs, one a line.
std::vector<std::string> alive();

// For stand-ins of other libraries over the same streams and memory.

/// Counts a call and returns what it shall return at once: success, the planned status or the fault
/// that stays.
int enter(const char* call);
/// Tells misuse.
void misuse(const std::string& what);
/// Work for a stream, done in its turn with device memory open. It may wait for other threads.
void enqueue(cudaStream_t stream, const char* what, std::function<void()> work);
/// The same of work that waits for others: it and what comes after it are done once `ready`.
void enqueue_when(cudaStream_t stream, const char* what, std::function<bool()> ready,
                  std::function<void()> work);
/// Tells misuse unless the range is live device memory, now and, where the work of enqueue calls
/// it, then. `of` says whose.
bool device_range(const char* of, const void* p, std::size_t bytes);
/// A handle of a kind, so that it is known while it lives.
void add_handle(const char* kind, const void* handle);
bool known_handle(const char* kind, const void* handle, const char* call);
bool remove_handle(const char* kind, const void* handle, const char* call);

}  // namespace eyas::fake_cuda
