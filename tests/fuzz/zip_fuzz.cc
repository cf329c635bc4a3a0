// A zip archive: every entry that is named is inside it.
#include "eyas/format/zip_reader.hpp"
#include "fuzz.hpp"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace eyas;
    const auto bytes = fuzz::bytes_of(data, size);
    fuzz::refuse_or_read([&] {
        const ZipReader zip(bytes, "fuzz");
        const auto root = zip.root_folder();
        for (const char* name : {"/data.pkl", "/byteorder", "/data/0", "/data/1", "/version"})
            fuzz::refuse_or_read([&] {
                const auto entry = zip.at(root + name);
                fuzz::require(entry.empty() ||
                              (entry.data() >= bytes.data() &&
                               entry.data() + entry.size() <= bytes.data() + bytes.size()));
                fuzz::touch(entry);
                zip.verify(root + name);
            });
    });
    return 0;
}
