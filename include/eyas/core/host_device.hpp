#pragma once

/// Marks what a GPU's compiler makes for the device as well; nothing to any other compiler.
#ifdef __CUDACC__
#define EYAS_HD __host__ __device__
#else
#define EYAS_HD
#endif
