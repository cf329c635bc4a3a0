// A manifest stream, line by line as a follower takes it: a line that was refused changes nothing,
// and what was taken is written as it was read.
#include "eyas/sample/manifest_stream.hpp"
#include "fuzz.hpp"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace eyas;
    std::string_view rest(reinterpret_cast<const char*>(data), size);
    (void)detail::is_manifest_stream(rest);
    ManifestStreamParser parser("fuzz");
    while (!rest.empty()) {
        const auto line = rest.substr(0, rest.find('\n'));
        rest.remove_prefix(std::min(rest.size(), line.size() + 1));
        (void)detail::is_failure_marker(line);
        const auto before = parser.refs();
        try {
            const auto ref = parser.take(line);
            fuzz::require(parser.header().has_value());
            fuzz::require(parser.refs() == before + (ref ? 1 : 0));
            if (ref) fuzz::require(parser.contains(ref->sample_id));
        } catch (const Error&) {
            fuzz::require(parser.refs() == before);
        }
    }
    return 0;
}
