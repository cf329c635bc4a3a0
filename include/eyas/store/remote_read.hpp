#pragma once
#include <algorithm>
#include <exception>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "eyas/store/concept.hpp"

namespace eyas::detail {

/// Which of the buffers are to be filled from elsewhere. Names are those of the object's tensors.
inline ObjectRead wish_for(const StoredObject& object, std::span<const NamedBuffer> buffers) {
    ObjectRead wish{.object = &object};
    if (object.decode) return wish;
    for (const auto& b : buffers)
        for (std::size_t i = 0; i < object.tensors.size(); ++i)
            if (object.tensors[i].name == b.name && !object.tensors[i].tensor.data) {
                wish.places.push_back(place_of(object, i));
                wish.into.push_back(b.buffer.bytes());
            }
    return wish;
}

/// Whether reading touches the object's bytes nowhere but in the backend.
inline bool is_elsewhere(const StoredObject& object) {
    return !object.decode && std::ranges::none_of(object.tensors, [](const NamedTensor& t) {
        return t.tensor.data != nullptr;
    });
}

/// Fills the places of a wish that the object decodes itself.
inline void decode_into(const ObjectRead& wish) {
    for (std::size_t i = 0; i < wish.places.size(); ++i)
        wish.object->decode(wish.places[i], wish.into[i]);
}

/// Gives every tensor of an object an address: one batch into memory that the object then keeps.
template <class B>
void bring_here(B& backend, StoredObject& object) {
    struct Brought {
        std::shared_ptr<const void> keep;
        std::vector<Tensor> tensors;
    };
    const auto brought = std::make_shared<Brought>();
    ObjectRead wish{.object = &object};
    std::vector<std::size_t> which;
    for (std::size_t i = 0; i < object.tensors.size(); ++i) {
        const auto& t = object.tensors[i].tensor;
        if (t.data) continue;
        which.push_back(i);
        brought->tensors.emplace_back(t.dtype, t.shape);
        wish.places.push_back(place_of(object, i));
        wish.into.push_back(brought->tensors.back().mutable_view().bytes());
    }
    if (which.empty()) return;
    if (object.decode)
        decode_into(wish);
    else if constexpr (ReadsElsewhere<B>)
        if (const auto error = backend.read_each({&wish, 1})[0]) std::rethrow_exception(error);
    for (std::size_t k = 0; k < which.size(); ++k)
        object.tensors[which[k]].tensor = brought->tensors[k].view();
    brought->keep = std::move(object.keep);
    object.keep = brought;
}

}  // namespace eyas::detail
