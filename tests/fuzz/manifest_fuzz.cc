// A manifest: what is read can be written, and is the same when it is read again.
#include "eyas/sample/manifest.hpp"
#include "fuzz.hpp"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace eyas;
    const fuzz::BytesAsFile file(fuzz::bytes_of(data, size));
    fuzz::refuse_or_read([&] {
        const auto manifest = read_manifest(file.path());
        for (const auto& ref : manifest.refs) {
            (void)ref.generation();
            for (const auto& [feature, unused] : ref.feature_keys) (void)ref.stored_name(feature);
            const auto text = ref_to_json(ref).dump(-1, ' ', true);
            const auto again = ref_from_json(parse_json<OrderedJson>(text, "again"), "again");
            fuzz::require(ref_to_json(again).dump(-1, ' ', true) == text);
        }
    });
    return 0;
}
