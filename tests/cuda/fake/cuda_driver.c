/* A CUDA driver (libcuda.so.1) on a machine without GPU: it takes every kernel and runs none, so that cuDNN, which
   compiles kernels for a GPU that is described to it, comes to the end of a plan. All else fails. */
#include <stddef.h>

enum { SUCCESS = 0, NO_DEVICE = 100 };

#define HANDS_OUT(name)        \
    int name(void** handle) {  \
        static char something; \
        *handle = &something;  \
        return SUCCESS;        \
    }
HANDS_OUT(cuLibraryLoadData)
HANDS_OUT(cuLibraryGetKernel)
HANDS_OUT(cuLibraryGetModule)
HANDS_OUT(cuKernelGetFunction)
HANDS_OUT(cuModuleLoadData)
HANDS_OUT(cuModuleLoadDataEx)
HANDS_OUT(cuModuleGetFunction)

#define TAKES(name)          \
    int name(void* handle) { \
        (void)handle;        \
        return SUCCESS;      \
    }
TAKES(cuLibraryUnload)
TAKES(cuModuleUnload)
TAKES(cuKernelSetAttribute)
TAKES(cuFuncSetAttribute)

int cuKernelGetAttribute(int* value) {
    *value = 0;
    return SUCCESS;
}
int cuDriverGetVersion(int* version) {
    *version = 13000;
    return SUCCESS;
}

#define FAILS(name) \
    int name(void) { return NO_DEVICE; }
FAILS(cuCtxGetCurrent)
FAILS(cuCtxGetDevice)
FAILS(cuCtxGetLimit)
FAILS(cuCtxPopCurrent)
FAILS(cuCtxPushCurrent)
FAILS(cuDeviceGet)
FAILS(cuDeviceGetAttribute)
FAILS(cuDeviceGetCount)
FAILS(cuDevicePrimaryCtxRelease)
FAILS(cuDevicePrimaryCtxReset)
FAILS(cuDevicePrimaryCtxRetain)
FAILS(cuFuncGetAttribute)
FAILS(cuGetErrorName)
FAILS(cuGetErrorString)
FAILS(cuInit)
FAILS(cuLaunchCooperativeKernel)
FAILS(cuLaunchKernel)
FAILS(cuLaunchKernelEx)
FAILS(cuLibraryLoadFromFile)
FAILS(cuLinkAddData)
FAILS(cuLinkAddData_v2)
FAILS(cuLinkAddFile_v2)
FAILS(cuLinkComplete)
FAILS(cuLinkCreate)
FAILS(cuLinkCreate_v2)
FAILS(cuLinkDestroy)
FAILS(cuMemcpyDtoH_v2)
FAILS(cuModuleGetGlobal_v2)
FAILS(cuModuleLoadFatBinary)
FAILS(cuOccupancyMaxActiveBlocksPerMultiprocessor)
FAILS(cuOccupancyMaxPotentialClusterSize)
FAILS(cuStreamGetCtx)
FAILS(cuStreamSynchronize)
FAILS(cuTensorMapEncodeTiled)
