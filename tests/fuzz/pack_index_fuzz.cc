// The binary index of packed shards, over a whole data section. The input's seal is made right
// first, since no fuzzer finds one; what is read then lies in the data, and every id is found.
#include "eyas/store/pack_index.hpp"
#include "fuzz.hpp"

namespace {
void seal(std::vector<std::byte>& bytes) {
    using eyas::detail::PackIndex;
    std::uint64_t index_bytes = 0;
    if (bytes.size() < PackIndex::header_bytes) return;
    std::memcpy(&index_bytes, bytes.data() + 16, sizeof index_bytes);
    if (index_bytes < PackIndex::header_bytes || index_bytes > bytes.size()) return;
    const auto sealed = std::span<const std::byte>(bytes).subspan(
        PackIndex::sealed_from, index_bytes - PackIndex::sealed_from);
    const auto sum = eyas::xxh3(sealed);
    std::memcpy(bytes.data() + PackIndex::checksum_at, &sum, sizeof sum);
}
}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace eyas;
    const auto input = fuzz::bytes_of(data, size);
    std::vector<std::byte> bytes(input.begin(), input.end());
    seal(bytes);
    fuzz::refuse_or_read([&] {
        const detail::PackIndex index(bytes, "fuzz");
        for (std::size_t i = 0; i < index.size(); ++i) {
            const auto sample = index.at(i);
            fuzz::require(index.find(sample.id) == i);
            for (const auto& f : sample.features)
                for (const auto& range : {f.data, f.scales})
                    fuzz::touch(
                        std::span<const std::byte>(bytes).subspan(range.offset, range.bytes));
        }
    });
    return 0;
}
