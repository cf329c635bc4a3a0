// A safetensors file.
#include "eyas/format/safetensors.hpp"
#include "fuzz.hpp"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace eyas;
    const fuzz::BytesAsFile file(fuzz::bytes_of(data, size));
    fuzz::refuse_or_read([&] {
        const SafetensorsFile read(file.path());
        for (const auto& t : read.tensors()) {
            fuzz::touch(t.tensor.bytes());
            fuzz::require(read.contains(t.name));
        }
    });
    return 0;
}
