#pragma once
#include <concepts>
#include <exception>
#include <span>
#include <utility>
#include <vector>

#include "eyas/core/tensor.hpp"
#include "eyas/sample/sample_ref.hpp"

namespace eyas {

/// The lease type of a store: holds one sample; destroyed, it gives the sample back unconsumed.
template <class S>
using LeaseOf = decltype(std::declval<S&>().acquire(std::declval<const SampleRef&>()));

/// What the loader needs of a store. All calls may come from several threads at once (the
/// loader's own reads, the consumer's calls). Store<Backend> is one.
template <class S>
concept SampleSource = std::movable<LeaseOf<S>> &&
    requires(S& store, const LeaseOf<S>& lease, const SampleRef& ref,
             std::span<const NamedBuffer> buffers,
             std::span<const typename S::ReadRequest> requests) {
    store.read_into(lease, buffers);  // fills caller's memory; shapes as stored
    // Several samples at once; one entry each, null where the read succeeded.
    { store.read_each(requests) } -> std::same_as<std::vector<std::exception_ptr>>;
    { store.view(lease) } -> std::convertible_to<std::vector<NamedTensor>>;
    // The sample was used and is held no longer: a consume-once store frees it. True when it is
    // gone.
    { store.consume(ref) } -> std::same_as<bool>;
};

}  // namespace eyas
