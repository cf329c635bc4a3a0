// The pickle inside a torch file, whose CRC-32 keeps mutations of whole files away from it.
#include "eyas/format/pickle_reader.hpp"
#include "fuzz.hpp"

namespace {
/// Reads every tensor in a value.
void touch(const eyas::PickleValue& v) {
    if (const auto* t = v.as<eyas::TensorView>()) eyas::fuzz::touch(t->bytes());
    if (const auto* l = v.as<eyas::PickleList>())
        for (const auto& x : *l) touch(x);
    if (const auto* l = v.as<eyas::PickleTuple>())
        for (const auto& x : l->items) touch(x);
    if (const auto* d = v.as<eyas::PickleDict>())
        for (const auto& [key, value] : d->items) touch(key), touch(value);
}
}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace eyas;
    static const std::vector<std::byte> storage(4096, std::byte{7});
    fuzz::refuse_or_read([&] {
        TensorBuilder tensors([](const std::string&) { return std::span(storage); }, "fuzz",
                              std::uint64_t{1} << 24);
        touch(PickleReader(fuzz::bytes_of(data, size), tensors, "fuzz").read());
    });
    return 0;
}
