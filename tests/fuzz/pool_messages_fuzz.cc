// Records of the pool's protocol. What is read is written as the same bytes.
#include "eyas/store/remote_protocol.hpp"
#include "fuzz.hpp"

namespace {
template <class Read, class Write>
void check(std::span<const std::byte> bytes, const Read& read, const Write& write) {
    eyas::fuzz::refuse_or_read([&] {
        eyas::detail::WireReader r(bytes, "fuzz");
        const auto value = read(r);
        eyas::detail::WireWriter w;
        write(w, value);
        const auto again = w.bytes();
        eyas::fuzz::require(again.size() <= bytes.size() &&
                            std::equal(again.begin(), again.end(), bytes.begin()));
    });
}
}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace eyas;
    using detail::WireWriter;
    if (size == 0) return 0;
    const auto bytes = fuzz::bytes_of(data + 1, size - 1);
    switch (data[0] % 4) {
        case 0:
            check(bytes, detail::read_key,
                  [](WireWriter& w, const ObjectKey& k) { detail::write_key(w, k); });
            break;
        case 1:
            check(bytes, detail::OpenedRecord::read, [](WireWriter& w, const auto& o) {
                for (const auto& t : o.tensors)
                    fuzz::require(o.file_bytes == 0 || t.offset + t.bytes() <= o.file_bytes);
                o.write(w);
            });
            break;
        case 2:
            check(bytes, detail::PutRecord::read, [](WireWriter& w, const auto& p) { p.write(w); });
            break;
        default:
            for (const std::uint64_t count : {std::uint64_t{2}, ~std::uint64_t{0}})
                fuzz::refuse_or_read([&] { (void)detail::read_objects(bytes, count, "fuzz"); });
    }
    return 0;
}
