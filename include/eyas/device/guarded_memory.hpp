#pragma once
#include <sys/mman.h>

#include <cstddef>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "eyas/core/error.hpp"
#include "eyas/core/memory_resource.hpp"

namespace eyas::detail {

/// Memory that only its device may touch: pages without access, opened while the device works.
/// What is given ends at a page that is never opened, give or take its alignment; what is released
/// stays closed, and no address is given twice. Any thread.
class GuardedMemory final : public MemoryResource {
public:
    static constexpr std::size_t page = 4096;

    ~GuardedMemory() override {
        for (const auto& [p, piece] : pieces_) ::munmap(piece.base, piece.pages + page);
        for (const auto& [base, bytes] : released_) ::munmap(base, bytes);
    }

    std::byte* allocate(std::size_t bytes) override {
        const auto inside = (bytes + 63) / 64 * 64, pages = (inside + page - 1) / page * page;
        void* p = map(nullptr, pages + page, 0);
        if (p == MAP_FAILED)
            throw ResourceError("no memory for " + std::to_string(bytes) + " bytes",
                                "GuardedMemory", "Use smaller batches");
        auto* base = static_cast<std::byte*>(p);
        const std::lock_guard lock(mutex_);
        if (open_ > 0) ::mprotect(base, pages, PROT_READ | PROT_WRITE);
        pieces_[base + pages - inside] = {base, pages};
        return base + pages - inside;
    }
    void release(std::byte* p) noexcept override {
        const std::lock_guard lock(mutex_);
        const auto it = pieces_.find(p);
        if (it == pieces_.end()) return;  // nullptr
        const auto bytes = it->second.pages + page;
        map(it->second.base, bytes, MAP_FIXED);  // gives the pages back, keeps the addresses
        auto& last = released_;
        if (!last.empty() && it->second.base + bytes == last.back().first)
            last.back() = {it->second.base, last.back().second + bytes};
        else
            last.emplace_back(it->second.base, bytes);
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
    static void* map(void* at, std::size_t bytes, int flags) noexcept {
        return ::mmap(at, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | flags, -1,
                      0);
    }
    void protect(int access) {
        for (const auto& [p, piece] : pieces_) ::mprotect(piece.base, piece.pages, access);
    }
    std::mutex mutex_;
    std::map<std::byte*, Piece> pieces_;
    std::vector<std::pair<std::byte*, std::size_t>> released_;
    int open_ = 0;
};

}  // namespace eyas::detail
