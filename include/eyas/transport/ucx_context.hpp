#pragma once
#include <poll.h>
#include <ucp/api/ucp.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "eyas/transport/concept.hpp"

namespace eyas::detail {

[[noreturn]] inline void throw_ucx(const std::string& what, const std::string& peer,
                                   ucs_status_t status) {
    throw TransportError(what + ": " + ::ucs_status_string(status), peer,
                         "Check that the peer runs and that the address is right");
}

/// One UCP context and the memory registered with it. Only active messages are asked for: UCX's
/// emulation of remote memory access over TCP checks neither keys nor bounds, so a peer could read
/// anything. Thread-safe.
class UcxContext {
public:
    UcxContext() {
        ucp_config_t* config = nullptr;
        check(::ucp_config_read(nullptr, nullptr, &config), "ucp_config_read");
        const std::unique_ptr<ucp_config_t, void (*)(ucp_config_t*)> owner(config,
                                                                           ::ucp_config_release);
        // Shared memory notices a dead peer within a second; and links that notice one stay with
        // shared memory instead of leaving it for TCP (UCX warns of options of what it may not
        // use).
        (void)::ucp_config_modify(config, "KEEPALIVE_INTERVAL", "1s");
        if (may_share_memory()) (void)::ucp_config_modify(config, "MM_ERROR_HANDLING", "y");
        ucp_params_t p{};
        p.field_mask = UCP_PARAM_FIELD_FEATURES | UCP_PARAM_FIELD_MT_WORKERS_SHARED;
        p.features = UCP_FEATURE_AM | UCP_FEATURE_WAKEUP;
        p.mt_workers_shared = 1;
        check(::ucp_init(&p, config, &context_), "ucp_init");
        ucp_context_attr_t a{};
        a.field_mask = UCP_ATTR_FIELD_MEMORY_TYPES;
        if (::ucp_context_query(context_, &a) == UCS_OK) memory_types_ = a.memory_types;
    }
    UcxContext(const UcxContext&) = delete;
    UcxContext& operator=(const UcxContext&) = delete;
    ~UcxContext() { ::ucp_cleanup(context_); }

    ucp_context_h get() const { return context_; }

    /// Whether UCX has transports to and from a device's memory.
    bool reaches(std::string_view kind) const {
        return kind == "cuda" && (memory_types_ & UCS_BIT(UCS_MEMORY_TYPE_CUDA)) != 0;
    }

    /// Throws ResourceError when the memory cannot be registered. `room`: of what device it is;
    /// null: the host's.
    ucp_mem_h add_region(std::span<std::byte> memory, DeviceRoom* room = nullptr) {
        ucp_mem_map_params_t p{};
        p.field_mask = UCP_MEM_MAP_PARAM_FIELD_ADDRESS | UCP_MEM_MAP_PARAM_FIELD_LENGTH;
        if (room) {
            p.field_mask |= UCP_MEM_MAP_PARAM_FIELD_MEMORY_TYPE;
            p.memory_type = UCS_MEMORY_TYPE_CUDA;
        }
        p.address = memory.data();
        p.length = memory.size();
        ucp_mem_h handle = nullptr;
        check(::ucp_mem_map(context_, &p, &handle), "ucp_mem_map");
        const std::lock_guard lock(mutex_);
        regions_.insert_or_assign(memory.data(), Registered{memory.size(), handle, room});
        return handle;
    }
    void remove_region(const std::byte* begin, ucp_mem_h handle) {
        {
            const std::lock_guard lock(mutex_);
            const auto it = regions_.find(begin);
            if (it != regions_.end() && it->second.handle == handle) regions_.erase(it);
        }
        ::ucp_mem_unmap(context_, handle);
    }
    /// For a transfer from or to these bytes.
    ucp_request_param_t parameters(const void* data, std::size_t size) const {
        ucp_request_param_t p{};
        const auto region = region_of(data, size);
        if (!region.handle) return p;
        p.op_attr_mask = UCP_OP_ATTR_FIELD_MEMH;
        p.memh = region.handle;
        if (region.room) {
            p.op_attr_mask |= UCP_OP_ATTR_FIELD_MEMORY_TYPE;
            p.memory_type = UCS_MEMORY_TYPE_CUDA;
        }
        return p;
    }
    /// Copies what came to memory of UCX's to where it belongs.
    void put(const void* from, std::span<std::byte> into) const {
        if (into.empty()) return;
        if (auto* room = region_of(into.data(), into.size()).room)
            room->copy_in(from, into.data(), into.size());
        else
            std::memcpy(into.data(), from, into.size());
    }

private:
    struct Registered {
        std::size_t size = 0;
        ucp_mem_h handle = nullptr;
        DeviceRoom* room = nullptr;
    };

    /// The registration that covers these bytes; empty where none does.
    Registered region_of(const void* data, std::size_t size) const {
        const auto* begin = static_cast<const std::byte*>(data);
        const std::lock_guard lock(mutex_);
        auto it = regions_.upper_bound(begin);
        if (it == regions_.begin()) return {};
        --it;
        const auto offset = static_cast<std::size_t>(begin - it->first);
        return offset + size <= it->second.size ? it->second : Registered{};
    }

    static bool may_share_memory() {
        const char* allowed = std::getenv("UCX_TLS");
        const std::string_view list = allowed ? allowed : "all";
        for (const char* name : {"all", "shm", "sm", "mm", "posix", "sysv"})
            if (list.find(name) != std::string_view::npos) return true;
        return false;
    }

    static void check(ucs_status_t status, const char* call) {
        if (status != UCS_OK)
            throw ResourceError(std::string(call) + ": " + ::ucs_status_string(status), "UCX",
                                "See the log with UCX_LOG_LEVEL=info");
    }

    ucp_context_h context_ = nullptr;
    std::uint64_t memory_types_ = 0;
    mutable std::mutex mutex_;
    std::map<const std::byte*, Registered> regions_;
};

/// A worker: what one link, or one listener, progresses. One thread at a time; signal() by any.
class UcxWorker {
public:
    explicit UcxWorker(const std::shared_ptr<UcxContext>& context) : context_(context) {
        ucp_worker_params_t p{};
        p.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE;
        p.thread_mode = UCS_THREAD_MODE_SERIALIZED;
        if (const auto s = ::ucp_worker_create(context_->get(), &p, &worker_); s != UCS_OK)
            throw_ucx("ucp_worker_create", "UCX", s);
        if (const auto s = ::ucp_worker_get_efd(worker_, &descriptor_); s != UCS_OK) {
            ::ucp_worker_destroy(worker_);
            throw_ucx("ucp_worker_get_efd", "UCX", s);
        }
    }
    UcxWorker(const UcxWorker&) = delete;
    UcxWorker& operator=(const UcxWorker&) = delete;
    ~UcxWorker() { ::ucp_worker_destroy(worker_); }

    ucp_worker_h get() const { return worker_; }
    UcxContext& context() const { return *context_; }
    void signal() const { ::ucp_worker_signal(worker_); }

    /// Progresses until `done()`; sleeps when nothing happens for a while. Throws what `done` or
    /// the limit does.
    template <class F>
    void progress_until(const F& done, const Limit& limit, const std::string& doing,
                        const std::string& peer) const {
        for (unsigned idle = 0, round = 0; !done(); ++round) {
            if (::ucp_worker_progress(worker_) != 0) {
                idle = 0;
            } else if (++idle >= spins) {
                sleep(limit);
                idle = spins / 2;
                limit.check(doing, peer);
            }
            if (round % 1024 == 1023) limit.check(doing, peer);
        }
    }

private:
    static constexpr unsigned spins = 2000;  // some tens of microseconds

    void sleep(const Limit& limit) const {
        if (::ucp_worker_arm(worker_) != UCS_OK) return;  // something happened meanwhile
        pollfd p{descriptor_, POLLIN, 0};
        ::poll(&p, 1, limit.wait_ms());
    }

    std::shared_ptr<UcxContext> context_;
    ucp_worker_h worker_ = nullptr;
    int descriptor_ = -1;
};

}  // namespace eyas::detail
