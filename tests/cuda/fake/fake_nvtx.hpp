#pragma once
#include <string>
#include <thread>
#include <vector>

/// A tool that listens to NVTX, linked into the program (NVTX's static injection): it is told what
/// a profiler would be, through the toolkit's own headers. What a profiler would not show is misuse
/// (fake_cuda::failures): ranges of a domain that is not there, without a name, or that end on a
/// thread where none began.
namespace eyas::fake_nvtx {

struct Event {
    bool begins;
    std::string domain, name;  // a range's end has its beginning's
    std::thread::id thread;
};

/// Takes what was told so far.
std::vector<Event> events();
/// Domains that were made and not destroyed.
int domains();

}  // namespace eyas::fake_nvtx
