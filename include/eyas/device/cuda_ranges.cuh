#pragma once
#include <nvtx3/nvToolsExt.h>

#include <cstdint>
#include <cstdio>

#include "eyas/core/span.hpp"

namespace eyas {

/// The spans of a run as NVTX ranges of a domain "eyas": Nsight Systems shows them, and the kernels
/// that were launched in each. Where no such tool listens they cost next to nothing. Any thread.
///
///   CudaRanges ranges;
///   options.trainer.trace = &ranges;
class CudaRanges final : public SpanListener {
public:
    CudaRanges() : domain_(nvtxDomainCreateA("eyas")) {}
    ~CudaRanges() override { nvtxDomainDestroy(domain_); }

    void begin(Lane, const char* name, std::int64_t number) noexcept override {
        char text[80];  // the tool copies it
        std::snprintf(text, sizeof text, number < 0 ? "%s" : "%s %lld", name,
                      static_cast<long long>(number));
        nvtxEventAttributes_t range{};
        range.version = NVTX_VERSION;
        range.size = NVTX_EVENT_ATTRIB_STRUCT_SIZE;
        range.messageType = NVTX_MESSAGE_TYPE_ASCII;
        range.message.ascii = text;
        nvtxDomainRangePushEx(domain_, &range);
    }
    void end(Lane, const char*, std::int64_t) noexcept override { nvtxDomainRangePop(domain_); }

private:
    nvtxDomainHandle_t domain_;  // null where no tool listens
};

}  // namespace eyas
