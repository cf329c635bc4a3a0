#pragma once
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <utility>

#include "eyas/core/json.hpp"

namespace eyas::cli {

/// RUN/metrics.jsonl: one JSON object a line, each on its way to the disk on return. One thread.
class MetricsFile {
public:
    /// The file is touched at the first call of the others.
    explicit MetricsFile(std::filesystem::path path) : path_(std::move(path)) {}

    /// Takes away what an earlier run wrote of steps after `step`, which come again, and half a
    /// line that it left. Throws ResourceError when the disk refuses.
    void go_on_from(std::int64_t step) {
        if (path_.has_parent_path()) eyas::create_directories(path_.parent_path());
        if (std::filesystem::is_regular_file(path_)) {
            const auto text = read_text_file(path_);
            std::string kept;
            std::size_t at = 0;
            for (std::size_t newline; (newline = text.find('\n', at)) != text.npos;
                 at = newline + 1) {
                const auto line = std::string_view(text).substr(at, newline + 1 - at);
                if (step_of(line) <= step) kept += line;
            }
            if (kept != text) write_text_file(path_, kept);
        }
        out_.open(path_, std::ios::app);
    }

    /// Throws ResourceError when the disk refuses.
    void write(const OrderedJson& line) {
        if (!out_.is_open()) go_on_from(0);
        if (!(out_ << line << std::endl))
            throw ResourceError("cannot write a line", path_.string(),
                                "Free some space, check permissions, and run it again");
    }

private:
    // 0 for a line that is not ours.
    static std::int64_t step_of(std::string_view line) {
        auto j = OrderedJson::parse(line, nullptr, false);
        if (j.is_object() && j.contains("held_out")) j = OrderedJson(j.at("held_out"));
        if (!j.is_object() || !j.contains("step") || !j.at("step").is_number_integer()) return 0;
        return j.at("step").get<std::int64_t>();
    }

    std::filesystem::path path_;
    std::ofstream out_;
};

}  // namespace eyas::cli
