#pragma once
#include <sys/resource.h>

namespace eyas {

/// Lets this process have as many files open as the system allows it to without asking anybody
/// (ulimit -n: the soft limit becomes the hard one). For programs that hold many links or mappings;
/// call it before threads exist. Nothing is lost where it does not succeed.
inline void raise_open_files() {
    rlimit limit{};
    if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == limit.rlim_max) return;
    limit.rlim_cur = limit.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &limit);
}

}  // namespace eyas
