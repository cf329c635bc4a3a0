#pragma once
#include <cstddef>

namespace eyas {

/// Where memory comes from that is not the host's own: a GPU's, for example. It must outlive
/// everything that it gave. One thread, unless an implementation says more.
class MemoryResource {
public:
    MemoryResource() = default;
    MemoryResource(const MemoryResource&) = delete;
    MemoryResource& operator=(const MemoryResource&) = delete;
    virtual ~MemoryResource() = default;

    /// Aligned to 64 bytes at least. Throws ResourceError when there is none.
    virtual std::byte* allocate(std::size_t bytes) = 0;
    virtual void release(std::byte* p) noexcept = 0;
};

}  // namespace eyas
