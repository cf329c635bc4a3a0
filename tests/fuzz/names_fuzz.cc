// Text from outside that names things: addresses, store URIs, object files. What is read says the
// same when it is written.
#include "eyas/store/directory_index.hpp"
#include "eyas/store/uri.hpp"
#include "eyas/transport/address.hpp"
#include "fuzz.hpp"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace eyas;
    const std::string text(reinterpret_cast<const char*>(data), size);
    fuzz::refuse_or_read([&] {
        const auto address = parse_address(text);
        fuzz::require(parse_address(address.text()) == address);
    });
    fuzz::refuse_or_read([&] { (void)parse_store_uri(text); });
    fuzz::refuse_or_read([&] {
        const auto name = encode_file_name(text);
        fuzz::require(name.find('/') == std::string::npos && name[0] != '.');
        fuzz::require(decode_file_name(name) == text);
    });
    fuzz::refuse_or_read([&] {
        if (const auto name = detail::ObjectName::parse(text)) {
            const auto again = detail::ObjectName::parse(name->text());
            fuzz::require(again && again->sample == name->sample &&
                          again->generation == name->generation && again->suffix == name->suffix);
        }
    });
    return 0;
}
