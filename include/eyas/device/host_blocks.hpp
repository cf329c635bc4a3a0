#pragma once
#include <sys/mman.h>

#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "eyas/device/block.hpp"
#include "eyas/device/cpu.hpp"

namespace eyas {

namespace detail {

/// Memory that only its device may touch: pages without access, opened while the device works.
/// What is given ends at a page that is never opened, give or take its alignment. Any thread.
class GuardedMemory final : public MemoryResource {
public:
    static constexpr std::size_t page = 4096;

    std::byte* allocate(std::size_t bytes) override {
        const auto inside = (bytes + 63) / 64 * 64, pages = (inside + page - 1) / page * page;
        void* p = ::mmap(nullptr, pages + page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED)
            throw ResourceError("no memory for " + std::to_string(bytes) + " bytes", "HostBlocks",
                                "Use smaller batches");
        auto* base = static_cast<std::byte*>(p);
        const std::lock_guard lock(mutex_);
        pieces_[base + pages - inside] = {base, pages};
        if (open_ > 0) ::mprotect(base, pages, PROT_READ | PROT_WRITE);
        return base + pages - inside;
    }
    void release(std::byte* p) noexcept override {
        const std::lock_guard lock(mutex_);
        const auto it = pieces_.find(p);
        ::munmap(it->second.base, it->second.pages + page);
        pieces_.erase(it);
    }
    void open() {
        const std::lock_guard lock(mutex_);
        if (open_++ == 0) protect(PROT_READ | PROT_WRITE);
    }
    void close() {
        const std::lock_guard lock(mutex_);
        if (--open_ == 0) protect(PROT_NONE);
    }

private:
    struct Piece {
        std::byte* base;
        std::size_t pages;
    };
    void protect(int access) {
        for (const auto& [p, piece] : pieces_) ::mprotect(piece.base, piece.pages, access);
    }
    std::mutex mutex_;
    std::map<std::byte*, Piece> pieces_;
    int open_ = 0;
};

/// A block that one host thread runs: phase by phase, thread by thread.
class HostBlock {
public:
    HostBlock(std::int64_t index, int threads, bool backwards)
        : index_(index), threads_(threads), backwards_(backwards) {}

    std::int64_t index() const { return index_; }
    int threads() const { return threads_; }

    template <class F>
    void each(F f) const {
        for (int i = 0; i < threads_; ++i) f(backwards_ ? threads_ - 1 - i : i);
    }

    /// In the order of a GPU: within warps of 32 by halves, then warp after warp.
    template <class T, class F, class O>
    T reduce(F f, O op) const {
        std::vector<T> v(static_cast<std::size_t>(threads_));
        each([&](int t) { v[static_cast<std::size_t>(t)] = f(t); });
        T all{};
        for (std::size_t warp = 0; warp < v.size(); warp += 32) {
            for (std::size_t half = 16; half > 0; half /= 2)
                for (std::size_t i = warp; i < warp + half; ++i) v[i] = op(v[i], v[i + half]);
            all = warp == 0 ? v[0] : op(all, v[warp]);
        }
        return all;
    }

private:
    std::int64_t index_;
    int threads_;
    bool backwards_;
};

}  // namespace detail

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
        for (std::int64_t i = 0; i < blocks; ++i) {
            detail::HostBlock block(backwards_ ? blocks - 1 - i : i, threads, backwards_);
            const auto shared = std::make_unique<typename K::Shared>();
            std::memset(static_cast<void*>(shared.get()), 0xff, sizeof *shared);
            kernel(block, *shared);
        }
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

    template <class T>
    void matmul(const Matmul<T, float>& x) const {
        const Opened memory(*memory_);
        cpu_.matmul(x);
    }
    void matmul(const Matmul<BFloat16, BFloat16>& x) const {
        const Opened memory(*memory_);
        std::vector<float> wide(static_cast<std::size_t>(x.m * x.n));
        cpu_.matmul(Matmul<BFloat16, float>{x.op_a, x.op_b, x.m, x.n, x.k, x.a, x.lda, x.b, x.ldb,
                                            wide.data(), x.n, x.alpha, 0.f});
        for (std::int64_t r = 0; r < x.m; ++r)
            for (std::int64_t j = 0; j < x.n; ++j)
                x.c[r * x.ldc + j] = BFloat16(wide[static_cast<std::size_t>(r * x.n + j)]);
    }
    template <class T>
    void matmul(const BatchedMatmul<T, float>& x) const {
        for (std::int64_t i = 0; i < x.count; ++i) {
            auto one = x.each;
            one.a += i * x.stride_a, one.b += i * x.stride_b, one.c += i * x.stride_c;
            matmul(one);
        }
    }

    MemoryResource* memory() const { return memory_.get(); }
    struct Mark {};  // its calls are done when they return
    Mark mark() const { return {}; }
    void upload(const void* from, void* to, std::size_t n) const { copy(from, to, n); }
    void download(const void* from, void* to, std::size_t n) const { copy(from, to, n); }
    void copy(const void* from, void* to, std::size_t bytes) const {
        const Opened memory(*memory_);
        cpu_.copy(from, to, bytes);
    }
    void zero(void* to, std::size_t bytes) const {
        const Opened memory(*memory_);
        cpu_.zero(to, bytes);
    }

private:
    struct Opened {
        explicit Opened(detail::GuardedMemory& m) : memory(m) { memory.open(); }
        Opened(const Opened&) = delete;
        Opened& operator=(const Opened&) = delete;
        ~Opened() { memory.close(); }
        detail::GuardedMemory& memory;
    };

    Cpu cpu_;
    std::shared_ptr<detail::GuardedMemory> memory_ = std::make_shared<detail::GuardedMemory>();
    bool backwards_;
};
static_assert(BlockDevice<HostBlocks>);

}  // namespace eyas
