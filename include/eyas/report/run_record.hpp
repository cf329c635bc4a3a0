#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "eyas/core/error.hpp"
#include "eyas/core/file.hpp"
#include "eyas/core/json.hpp"

namespace eyas {

/// What a run directory tells of a training: run.json (how it was started: any object) and the
/// lines of metrics.jsonl.
struct RunRecord {
    std::string name;                             // of the directory
    OrderedJson about = OrderedJson::object();    // run.json; {} where there is none
    OrderedJson logged = OrderedJson::array();    // objects with `step`, ascending, one a step
    OrderedJson held_out = OrderedJson::array();  // the same of held-out evaluations
};

namespace detail {

/// Adds a point; of points of one step (a resumed run repeats some) the later line stays.
inline void add_point(OrderedJson& points, OrderedJson point, const std::string& where) {
    const auto step = required<std::int64_t>(point, "step", where);
    while (!points.empty() && points.back().at("step").get<std::int64_t>() >= step)
        points.erase(points.size() - 1);
    points.push_back(std::move(point));
}

}  // namespace detail

/// Reads a run directory. A last line that was cut (its writer was killed, or is writing) is left
/// out. Throws DataError for a directory without metrics.jsonl and for lines that are no objects
/// with a step.
inline RunRecord read_run(const std::filesystem::path& dir) {
    RunRecord run;
    const auto whole = std::filesystem::absolute(dir / "").lexically_normal().parent_path();
    run.name = whole.filename().string();
    const auto path = dir / "metrics.jsonl";
    if (!std::filesystem::exists(path))
        throw DataError("no metrics.jsonl: no run directory of eyas train", dir.string(),
                        "Name the directory that was given as --out");
    if (const auto about = dir / "run.json"; std::filesystem::exists(about))
        run.about = OrderedJson::parse(read_text_file(about), nullptr, false);
    if (!run.about.is_object())
        throw DataError("no JSON object", (dir / "run.json").string(), "Remove the file");
    const auto text = read_text_file(path);
    std::size_t number = 0;
    for (std::string_view rest = text; !rest.empty();) {
        const auto end = rest.find('\n');
        if (end == std::string_view::npos) break;  // cut
        const auto line = rest.substr(0, end);
        rest.remove_prefix(end + 1);
        const auto where = path.string() + " line " + std::to_string(++number);
        auto point = OrderedJson::parse(line, nullptr, false);
        if (!point.is_object())
            throw DataError("no JSON object", where, "Remove the line, or the file");
        if (point.contains("held_out"))
            detail::add_point(run.held_out, std::move(point["held_out"]), where);
        else
            detail::add_point(run.logged, std::move(point), where);
    }
    return run;
}

}  // namespace eyas
