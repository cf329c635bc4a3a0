// A torch file (.ckpt, .pt), or a gzip of one: the zip, its entries, the pickle, the tensors.
#include "eyas/format/torch_file.hpp"
#include "fuzz.hpp"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace eyas;
    const fuzz::BytesAsFile file(fuzz::bytes_of(data, size));
    for (const bool verify : {true, false})
        fuzz::refuse_or_read([&] {
            const TorchFile torch(file.path(), {.verify_crc = verify});
            for (const auto& t : torch.tensors()) fuzz::touch(t.tensor.bytes());
        });
    return 0;
}
