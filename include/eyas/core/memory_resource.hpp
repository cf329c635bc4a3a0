#pragma once
#include <cstddef>
#include <string_view>

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

/// Memory of a device that others than the thread which drives it fill while it works: a loader's
/// threads, a transport. Any thread; each call has done its work when it returns.
class DeviceRoom : public MemoryResource {
public:
    virtual std::string_view kind() const = 0;  // the device's name
    /// Before a library writes there on the calling thread.
    virtual void enter() = 0;
    virtual void copy_in(const void* from_host, void* to, std::size_t bytes) = 0;
    virtual void zero(void* to, std::size_t bytes) = 0;
};

}  // namespace eyas
