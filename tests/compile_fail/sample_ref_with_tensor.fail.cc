// A control-plane record with a tensor inside is not MetadataOnly.
#include <string>

#include "eyas/core/tensor.hpp"
#include "eyas/sample/metadata_only.hpp"

struct SampleRefWithTensor {
    std::string sample_id;
#ifndef EYAS_POSITIVE_CONTROL
    eyas::Tensor hidden_state;
#endif
};
static_assert(eyas::MetadataOnly<SampleRefWithTensor>);
