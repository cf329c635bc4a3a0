// A cuDNN on the host: the entry points of its graph API that cudnn-frontend calls. Descriptors are
// checked as far as the documentation says what they need; a plan is the graph itself, computed
// operation by operation as work of the handle's stream (cudnn_graph.hpp).
#include <cudnn.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "cudnn_descriptor.hpp"
#include "fake_cuda.hpp"
#include "state.hpp"

using namespace eyas::fake_cuda;

namespace {

struct Handle {
    cudaStream_t stream = nullptr;
};

/// What lives, and the last refusal. Not held while work is done.
struct Library {
    std::mutex mutex;
    std::map<const void*, DescriptorPtr> descriptors;
    std::map<const void*, Handle> handles;
    std::string refusal;

    static Library& get() {
        static Library library;
        return library;
    }
};

cudnnStatus_t status(const char* call) {
    const int s = enter(call);
    if (s == 0) return CUDNN_STATUS_SUCCESS;
    return State::get().fault ? CUDNN_STATUS_EXECUTION_FAILED : static_cast<cudnnStatus_t>(s);
}

constexpr const char* handle_kind = "cuDNN handle";
constexpr const char* descriptor_kind = "cuDNN descriptor";
constexpr std::size_t workspace_bytes = 512;

std::size_t size_of(cudnnBackendAttributeType_t type) {
    switch (type) {
        case CUDNN_TYPE_BOOLEAN:
        case CUDNN_TYPE_CHAR:
            return 1;
        case CUDNN_TYPE_INT64:
        case CUDNN_TYPE_DOUBLE:
        case CUDNN_TYPE_HANDLE:
        case CUDNN_TYPE_VOID_PTR:
        case CUDNN_TYPE_BACKEND_DESCRIPTOR:
            return 8;
        default:
            return 4;
    }
}

DescriptorPtr look_up(cudnnBackendDescriptor_t d, const char* call) {
    if (!known_handle(descriptor_kind, d, call)) return nullptr;
    auto& l = Library::get();
    const std::lock_guard lock(l.mutex);
    return l.descriptors.at(d);
}

cudnnStatus_t refused(const std::string& why) {
    auto& l = Library::get();
    const std::lock_guard lock(l.mutex);
    l.refusal = why;
    return CUDNN_STATUS_NOT_SUPPORTED;
}

DescriptorPtr made(cudnnBackendDescriptorType_t type, int name, DescriptorPtr part) {
    auto d = std::make_shared<Descriptor>();
    d->type = type, d->finalized = true;
    d->attributes[name] = {CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, {}, {std::move(part)}};
    return d;
}

/// The one engine there is, as the heuristics' only result.
void propose(Descriptor& heuristics) {
    auto engine = made(CUDNN_BACKEND_ENGINE_DESCRIPTOR, CUDNN_ATTR_ENGINE_OPERATION_GRAPH,
                       heuristics.part(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH));
    engine->attributes[CUDNN_ATTR_ENGINE_GLOBAL_INDEX] = {
        CUDNN_TYPE_INT64, 1, std::vector<std::byte>(8), {}};
    auto config = made(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, CUDNN_ATTR_ENGINECFG_ENGINE, engine);
    config->attributes[CUDNN_ATTR_ENGINECFG_SHARED_MEMORY_USED] = {
        CUDNN_TYPE_INT32, 1, std::vector<std::byte>(4), {}};
    heuristics.attributes[CUDNN_ATTR_ENGINEHEUR_RESULTS] = {
        CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, {}, {config}};
}

OpGraph graph_of_plan(const Descriptor& plan) {
    const auto config = plan.part(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG);
    const auto engine = config ? config->part(CUDNN_ATTR_ENGINECFG_ENGINE) : nullptr;
    const auto graph = engine ? engine->part(CUDNN_ATTR_ENGINE_OPERATION_GRAPH) : nullptr;
    std::string why;
    return graph ? graph_of(*graph, why) : OpGraph();
}

/// Every array that is not virtual, checked; what is by value is read here, as cuDNN does.
bool gather(const OpGraph& graph, const Descriptor& pack, GraphArrays& arrays,
            std::vector<std::pair<const void*, std::size_t>>& ranges) {
    const auto uids = pack.all<std::int64_t>(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS);
    const auto pointers = pack.all<void*>(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS);
    for (std::size_t i = 0; i < std::min(uids.size(), pointers.size()); ++i)
        arrays.pointers[uids[i]] = pointers[i];
    for (const auto& op : graph) {
        auto tensors = op.in;
        tensors.push_back(op.out);
        for (const auto& t : {op.rows, op.columns, op.depth})
            if (t) tensors.push_back(*t);
        for (const auto& t : tensors) {
            if (t.is_virtual) continue;
            const auto it = arrays.pointers.find(t.uid);
            const auto who = "cudnnBackendExecute: tensor " + std::to_string(t.uid);
            if (it == arrays.pointers.end() || !it->second)
                return misuse(who + " has no array"), false;
            if (t.by_value) {
                std::memcpy(&arrays.values[t.uid], it->second, sizeof(float));
                continue;
            }
            if (reinterpret_cast<std::uintptr_t>(it->second) %
                static_cast<std::uintptr_t>(t.alignment))
                return misuse(who + " is not aligned to " + std::to_string(t.alignment)), false;
            ranges.emplace_back(it->second, t.span_bytes());
        }
    }
    ranges.emplace_back(pack.one<void*>(CUDNN_ATTR_VARIANT_PACK_WORKSPACE), workspace_bytes);
    return true;
}

}  // namespace

#define EYAS_FAKE_ENTER(call) \
    if (const auto planned = status(call); planned != CUDNN_STATUS_SUCCESS) return planned

extern "C" {

std::size_t cudnnGetVersion() { return CUDNN_VERSION; }
const char* cudnnGetErrorString(cudnnStatus_t status) {
    return status == CUDNN_STATUS_SUCCESS         ? "CUDNN_STATUS_SUCCESS"
           : status == CUDNN_STATUS_NOT_SUPPORTED ? "CUDNN_STATUS_NOT_SUPPORTED"
           : status == CUDNN_STATUS_ALLOC_FAILED  ? "CUDNN_STATUS_ALLOC_FAILED"
                                                  : "CUDNN_STATUS_INTERNAL_ERROR";
}
void cudnnGetLastErrorString(char* message, std::size_t bytes) {
    auto& l = Library::get();
    const std::lock_guard lock(l.mutex);
    const auto n = std::min(bytes - 1, l.refusal.size());
    std::memcpy(message, l.refusal.data(), n);
    message[n] = 0;
}

cudnnStatus_t cudnnCreate(cudnnHandle_t* handle) {
    EYAS_FAKE_ENTER("cudnnCreate");
    auto& l = Library::get();
    const std::lock_guard lock(l.mutex);
    static std::uintptr_t last = 0;
    *handle = reinterpret_cast<cudnnHandle_t>(last += 16);
    l.handles[*handle] = {};
    add_handle(handle_kind, *handle);
    return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnDestroy(cudnnHandle_t handle) {
    const auto planned = status("cudnnDestroy");  // what it destroys is gone all the same
    if (!remove_handle(handle_kind, handle, "cudnnDestroy")) return CUDNN_STATUS_BAD_PARAM;
    return planned;
}
cudnnStatus_t cudnnSetStream(cudnnHandle_t handle, cudaStream_t stream) {
    EYAS_FAKE_ENTER("cudnnSetStream");
    if (!known_handle(handle_kind, handle, "cudnnSetStream")) return CUDNN_STATUS_BAD_PARAM;
    auto& l = Library::get();
    const std::lock_guard lock(l.mutex);
    l.handles[handle].stream = stream;
    return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnGetStream(cudnnHandle_t handle, cudaStream_t* stream) {
    EYAS_FAKE_ENTER("cudnnGetStream");
    if (!known_handle(handle_kind, handle, "cudnnGetStream")) return CUDNN_STATUS_BAD_PARAM;
    auto& l = Library::get();
    const std::lock_guard lock(l.mutex);
    *stream = l.handles[handle].stream;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t type,
                                           cudnnBackendDescriptor_t* descriptor) {
    EYAS_FAKE_ENTER("cudnnBackendCreateDescriptor");
    auto d = std::make_shared<Descriptor>();
    d->type = type;
    *descriptor = d.get();
    auto& l = Library::get();
    const std::lock_guard lock(l.mutex);
    l.descriptors[*descriptor] = std::move(d);
    add_handle(descriptor_kind, *descriptor);
    return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t descriptor) {
    const auto planned = status("cudnnBackendDestroyDescriptor");
    if (!descriptor) return CUDNN_STATUS_BAD_PARAM;  // what could not be created
    if (!remove_handle(descriptor_kind, descriptor, "cudnnBackendDestroyDescriptor"))
        return CUDNN_STATUS_BAD_PARAM;
    auto& l = Library::get();
    const std::lock_guard lock(l.mutex);
    l.descriptors.erase(descriptor);
    return planned;
}

cudnnStatus_t cudnnBackendSetAttribute(cudnnBackendDescriptor_t descriptor,
                                       cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, std::int64_t count,
                                       const void* elements) {
    const char* call = "cudnnBackendSetAttribute";
    EYAS_FAKE_ENTER(call);
    const auto d = look_up(descriptor, call);
    if (!d) return CUDNN_STATUS_BAD_PARAM;
    if (d->finalized)
        return misuse("cudnnBackendSetAttribute of what is finalized"), CUDNN_STATUS_BAD_PARAM;
    Attribute a{type, count, {}, {}};
    const auto* from = static_cast<const std::byte*>(elements);
    a.bytes.assign(from, from + static_cast<std::size_t>(count) * size_of(type));
    if (type == CUDNN_TYPE_BACKEND_DESCRIPTOR)
        for (std::int64_t i = 0; i < count; ++i) {
            auto part = look_up(static_cast<const cudnnBackendDescriptor_t*>(elements)[i], call);
            if (!part || !part->finalized)
                return misuse("cudnnBackendSetAttribute to what is not finalized"),
                       CUDNN_STATUS_BAD_PARAM;
            a.parts.push_back(std::move(part));
        }
    d->attributes[name] = std::move(a);
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendFinalize(cudnnBackendDescriptor_t descriptor) {
    EYAS_FAKE_ENTER("cudnnBackendFinalize");
    const auto d = look_up(descriptor, "cudnnBackendFinalize");
    if (!d) return CUDNN_STATUS_BAD_PARAM;
    if (std::string why;
        d->type == CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR && graph_of(*d, why).empty())
        return refused(why);
    if (d->type == CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR) propose(*d);
    if (d->type == CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR) {
        const std::int64_t bytes = workspace_bytes;
        Attribute a{CUDNN_TYPE_INT64, 1, std::vector<std::byte>(sizeof bytes), {}};
        std::memcpy(a.bytes.data(), &bytes, sizeof bytes);
        d->attributes[CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE] = std::move(a);
    }
    d->finalized = true;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendGetAttribute(cudnnBackendDescriptor_t const descriptor,
                                       cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, std::int64_t room,
                                       std::int64_t* count, void* elements) {
    const char* call = "cudnnBackendGetAttribute";
    EYAS_FAKE_ENTER(call);
    const auto d = look_up(descriptor, call);
    if (!d) return CUDNN_STATUS_BAD_PARAM;
    const auto it = d->attributes.find(name);
    if (count) *count = it == d->attributes.end() ? 0 : it->second.count;
    if (it == d->attributes.end() || !elements) return CUDNN_STATUS_SUCCESS;
    const auto& a = it->second;
    if (a.type != type) return misuse("cudnnBackendGetAttribute: type"), CUDNN_STATUS_BAD_PARAM;
    for (std::size_t i = 0; i < std::min(static_cast<std::size_t>(room), a.parts.size()); ++i) {
        const auto to = look_up(static_cast<cudnnBackendDescriptor_t*>(elements)[i], call);
        if (!to) return CUDNN_STATUS_BAD_PARAM;
        *to = *a.parts[i];
    }
    if (a.parts.empty())
        std::memcpy(elements, a.bytes.data(),
                    std::min(static_cast<std::size_t>(room) * size_of(type), a.bytes.size()));
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendExecute(cudnnHandle_t handle, cudnnBackendDescriptor_t plan,
                                  cudnnBackendDescriptor_t variant_pack) {
    const char* call = "cudnnBackendExecute";
    EYAS_FAKE_ENTER(call);
    const auto p = look_up(plan, call), pack = look_up(variant_pack, call);
    if (!known_handle(handle_kind, handle, call) || !p || !pack) return CUDNN_STATUS_BAD_PARAM;
    if (!p->finalized || !pack->finalized)
        return misuse("cudnnBackendExecute of what is not finalized"), CUDNN_STATUS_BAD_PARAM;
    auto graph = graph_of_plan(*p);
    GraphArrays arrays;
    std::vector<std::pair<const void*, std::size_t>> ranges;
    if (graph.empty() || !gather(graph, *pack, arrays, ranges)) return CUDNN_STATUS_BAD_PARAM;
    const auto there = [ranges] {
        return std::ranges::all_of(ranges, [](const auto& r) {
            return device_range("cudnnBackendExecute", r.first, r.second);
        });
    };
    if (!there()) return CUDNN_STATUS_BAD_PARAM;
    cudaStream_t stream = nullptr;
    {
        auto& l = Library::get();
        const std::lock_guard lock(l.mutex);
        stream = l.handles[handle].stream;
    }
    enqueue(stream, call, [graph = std::move(graph), arrays, there] {
        if (there()) run(graph, arrays);
    });
    return CUDNN_STATUS_SUCCESS;
}

}  // extern "C"
