// Runs a target once over each file that is named, or that lies in a folder that is named: how the
// corpus is a regression test where there is no libFuzzer.
#include <cstdio>

#include "fuzz.hpp"

namespace {
int files = 0;
void run(const std::filesystem::path& path) {
    std::printf("%s\n", path.c_str());
    std::fflush(stdout);  // the last one named is the one that ends the run
    const auto text = eyas::read_text_file(path);
    LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(text.data()), text.size());
    ++files;
}
}  // namespace

int main(int count, char** arguments) {
    LLVMFuzzerTestOneInput(nullptr, 0);
    for (int i = 1; i < count; ++i) {
        const std::filesystem::path path = arguments[i];
        if (!std::filesystem::is_directory(path)) {
            run(path);
            continue;
        }
        for (const auto& e : std::filesystem::directory_iterator(path)) run(e.path());
    }
    return files > 0 ? 0 : 1;
}
