// fake_nvtx.hpp says what this is.
#include <cstdint>

// NVTX's headers call it where it is not null, and define it where no tool does.
extern "C" {
extern int (*InitializeInjectionNvtx2_fnptr)(const void* (*tables)(std::uint32_t));
}
#define NVTX_STATIC_INJECTION_IMPL
#include <nvtx3/nvToolsExt.h>

#include <map>
#include <mutex>
#include <utility>

#include "fake_cuda.hpp"
#include "fake_nvtx.hpp"

namespace {
using eyas::fake_nvtx::Event;

std::mutex mutex;  // guards all
std::map<nvtxDomainHandle_t, std::string> names;
std::vector<Event> told;
std::map<std::pair<std::thread::id, nvtxDomainHandle_t>, std::vector<std::string>> open_ranges;

nvtxDomainHandle_t NVTX_API create(const char* name) {
    static char handles[64];
    static std::size_t made = 0;
    const std::lock_guard lock(mutex);
    const auto handle = reinterpret_cast<nvtxDomainHandle_t>(&handles[made++ % sizeof handles]);
    names[handle] = name;
    return handle;
}
void NVTX_API destroy(nvtxDomainHandle_t domain) {
    const std::lock_guard lock(mutex);
    if (names.erase(domain) == 0) eyas::fake_cuda::misuse("nvtxDomainDestroy: no such domain");
}
int NVTX_API push(nvtxDomainHandle_t domain, const nvtxEventAttributes_t* range) {
    const std::lock_guard lock(mutex);
    auto& open = open_ranges[{std::this_thread::get_id(), domain}];
    if (!names.contains(domain) || range->version != NVTX_VERSION ||
        range->size != NVTX_EVENT_ATTRIB_STRUCT_SIZE ||
        range->messageType != NVTX_MESSAGE_TYPE_ASCII || !range->message.ascii) {
        eyas::fake_cuda::misuse("nvtxDomainRangePushEx: a range that no tool shows");
        return NVTX_NO_PUSH_POP_TRACKING;
    }
    open.emplace_back(range->message.ascii);
    told.push_back({true, names[domain], open.back(), std::this_thread::get_id()});
    return static_cast<int>(open.size()) - 1;
}
int NVTX_API pop(nvtxDomainHandle_t domain) {
    const std::lock_guard lock(mutex);
    auto& open = open_ranges[{std::this_thread::get_id(), domain}];
    if (open.empty()) {
        eyas::fake_cuda::misuse("nvtxDomainRangePop: no range began on this thread");
        return NVTX_NO_PUSH_POP_TRACKING;
    }
    told.push_back({false, names[domain], open.back(), std::this_thread::get_id()});
    open.pop_back();
    return static_cast<int>(open.size());
}

template <class F>
void listen(NvtxFunctionTable table, unsigned id, F* f) {
    *table[id] = reinterpret_cast<NvtxFunctionPointer>(f);
}

/// Called by NVTX at its first use.
int NVTX_API begin_listening(NvtxGetExportTableFunc_t tables) {
    const auto* callbacks =
        static_cast<const NvtxExportTableCallbacks*>(tables(NVTX_ETID_CALLBACKS));
    NvtxFunctionTable table = nullptr;
    unsigned size = 0;
    if (!callbacks || !callbacks->GetModuleFunctionTable(NVTX_CB_MODULE_CORE2, &table, &size) ||
        size <= NVTX_CBID_CORE2_DomainDestroy)
        return 0;
    listen(table, NVTX_CBID_CORE2_DomainCreateA, create);
    listen(table, NVTX_CBID_CORE2_DomainDestroy, destroy);
    listen(table, NVTX_CBID_CORE2_DomainRangePushEx, push);
    listen(table, NVTX_CBID_CORE2_DomainRangePop, pop);
    return 1;
}
}  // namespace

NvtxInitializeInjectionNvtxFunc_t InitializeInjectionNvtx2_fnptr = begin_listening;

std::vector<Event> eyas::fake_nvtx::events() {
    const std::lock_guard lock(mutex);
    return std::exchange(told, {});
}
int eyas::fake_nvtx::domains() {
    const std::lock_guard lock(mutex);
    return static_cast<int>(names.size());
}
