// A gzip stream, of one or several members.
#include "eyas/format/gzip.hpp"
#include "fuzz.hpp"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace eyas;
    constexpr std::uint64_t largest = std::uint64_t{1} << 22;
    fuzz::refuse_or_read([&] {
        const auto out = gunzip(fuzz::bytes_of(data, size), "fuzz", largest);
        fuzz::require(out.view().size_bytes() <= largest);
        fuzz::touch(out.view().bytes());
    });
    return 0;
}
