#pragma once
#include <cstdint>
#include <memory>
#include <string_view>

#include "eyas/device/block.hpp"
#include "eyas/device/cpu.hpp"
#include "eyas/device/guarded_memory.hpp"
#include "eyas/device/host_block.hpp"

namespace eyas {

/// A GPU's stand-in on the host, for tests: it runs the kernels of a GPU block by block and thread
/// by thread, and its memory is closed to everybody else, so a loop of the host over a device's
/// array, or a read past its end, is a fault. Products are Cpu's. Slow. Copies share one memory;
/// one thread drives it, any may copy.
class HostBlocks {
public:
    static constexpr std::string_view name = "host-blocks";
    static constexpr std::int64_t attention_tile = 1;  // so that strips are as short as can be

    /// `backwards`: blocks and threads from last to first; nothing may change.
    explicit HostBlocks(bool backwards = false) : backwards_(backwards) {}

    template <class K>
    void launch(std::int64_t blocks, int threads, const K& kernel) const {
        const Opened memory(*memory_);
        detail::run_on_host(blocks, threads, backwards_, kernel);
    }
    template <class F>
    void for_each(std::int64_t n, F f) const {
        launch_each(*this, n, f);
    }
    template <class F>
    void for_each_row(std::int64_t n, F f) const {
        launch_each(*this, n, f);
    }
    template <class F>
    double sum(std::int64_t n, F f) const {
        return launch_sum(*this, n, f);
    }

    template <class T, class TC>
    void matmul(const Matmul<T, TC>& x) const {
        const Opened memory(*memory_);
        detail::product_on_host(x);
    }
    template <class T>
    void matmul(const BatchedMatmul<T, float>& x) const {
        const Opened memory(*memory_);
        detail::product_on_host(x);
    }

    MemoryResource* memory() const { return memory_.get(); }
    struct Mark {};  // its calls are done when they return
    Mark mark() const { return {}; }
    void upload(const void* from, void* to, std::size_t n) const { copy(from, to, n); }
    void download(const void* from, void* to, std::size_t n) const { copy(from, to, n); }
    void copy(const void* from, void* to, std::size_t bytes) const {
        const Opened memory(*memory_);
        Cpu().copy(from, to, bytes);
    }
    void zero(void* to, std::size_t bytes) const {
        const Opened memory(*memory_);
        Cpu().zero(to, bytes);
    }

private:
    struct Opened {
        explicit Opened(detail::GuardedMemory& m) : memory(m) { memory.open(); }
        Opened(const Opened&) = delete;
        Opened& operator=(const Opened&) = delete;
        ~Opened() { memory.close(); }
        detail::GuardedMemory& memory;
    };

    std::shared_ptr<detail::GuardedMemory> memory_ = std::make_shared<detail::GuardedMemory>();
    bool backwards_;
};
static_assert(BlockDevice<HostBlocks>);

}  // namespace eyas
