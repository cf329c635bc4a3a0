#pragma once
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <map>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "eyas/trainer/trainer.hpp"
#include "tests/checkpoint/disk.hpp"
#include "tests/trainer/fake_model.hpp"

// Runs whose checkpoints are written while they train, and what they leave.
namespace eyas::test {

inline TrainerOptions options(const std::filesystem::path& run_dir, std::int64_t save_interval,
                              bool async = true) {
    TrainerOptions o;
    o.schedule.base_rate = 0.05;
    o.log_interval = 4;
    o.save_interval = save_interval;
    o.keep_checkpoints = 0;
    o.run_dir = run_dir;
    o.async_checkpoints = async;
    return o;
}

/// Every file in a directory, by its path from there.
inline std::map<std::string, std::string> files_in(const std::filesystem::path& dir) {
    std::map<std::string, std::string> all;
    for (const auto& e : std::filesystem::recursive_directory_iterator(dir))
        if (e.is_regular_file())
            all[std::filesystem::relative(e.path(), dir).string()] = read_text_file(e.path());
    return all;
}

inline std::vector<std::string> names_in(const std::filesystem::path& dir) {
    std::vector<std::string> names;
    for (const auto& e : std::filesystem::directory_iterator(dir))
        names.push_back(e.path().filename().string());
    std::ranges::sort(names);
    return names;
}

using Steps = std::vector<std::int64_t>;
/// The steps that were acknowledged, but for the nothing that a run acknowledges when it begins.
inline Steps acknowledged_in(const FakeLoader& loader) {
    Steps steps;
    for (const auto& a : loader.acknowledged)
        if (a.second > 0) steps.push_back(a.second);
    return steps;
}

/// Waits until somebody in `activity` does what `text` says; throws when nobody ever does.
inline void await(const Activity& activity, const std::string& text) {
    const auto deadline = std::chrono::steady_clock::now() + patience;
    while (activity.seen().text() != text) {
        if (std::chrono::steady_clock::now() > deadline)
            throw std::runtime_error("nobody was ever " + text);
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
}
inline std::string waiting_for(std::int64_t step) {
    return "waiting for the checkpoint of step " + std::to_string(step) + " to reach the disk";
}

}  // namespace eyas::test
