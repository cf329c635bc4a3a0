// A model's config.json.
#include "eyas/format/hf_config.hpp"
#include "fuzz.hpp"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace eyas;
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    fuzz::refuse_or_read([&] { (void)parse_model_config(parse_json(text, "fuzz"), "fuzz"); });
    return 0;
}
