// dataplane [--part all|local|remote] [--link NAME] [--dir D] [--samples N] [--tokens T]
// [--width H] [--runs R]:
// times the way of the features beside what the machine gives (memcpy, file copy, raw sockets, UCX'
// own benchmark), in one run, bytes verified.
#include "bench/dataplane/local.hpp"
#include "bench/dataplane/remote.hpp"

int main(int argc, char** argv) {
    try {
        namespace bench = eyas::bench;
        const bench::Arguments a(argc, argv,
                                 {{"part", "all"},
                                  {"dir", std::filesystem::temp_directory_path().string()},
                                  {"samples", "8"},
                                  {"tokens", "2048"},
                                  {"width", "4096"},
                                  {"runs", "5"},
                                  {"role", ""},  // of a process that this program starts
                                  {"address", ""},
                                  {"link", ""}});
        const std::filesystem::path dir = a.text("dir");
        const auto runs = static_cast<std::size_t>(a.number("runs"));
        if (a.text("role") == "serve") bench::serve(a.text("address"), dir);
        if (a.text("role") == "get") return bench::get(a.text("link"), dir, runs), 0;
        if (a.text("part") != "remote") bench::LocalRows(a).run();
        if (a.text("part") != "local") {
            const auto scratch = dir / "eyas-bench-pools";
            std::filesystem::remove_all(scratch);
            eyas::create_directories(scratch);
            bench::remote_rows(std::filesystem::read_symlink("/proc/self/exe"), scratch, runs,
                               a.text("link"));
            std::filesystem::remove_all(scratch);
        }
    } catch (const std::exception& e) {
        std::fprintf(stderr, "dataplane: %s\n", e.what());
        return 1;
    }
}
