// The same program, which also offers GPUs: nvcc compiles it, with EYAS_CLI_CUDA.
#include "main.cc"
