#pragma once
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <map>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace eyas::bench {

template <class F>
double seconds_of(F&& f) {
    const auto start = std::chrono::steady_clock::now();
    f();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

struct Times {
    double median = 0, min = 0, max = 0;
};

/// Seconds of f() in `runs` runs after one that warms up (0: of that one); before() is run before
/// each, untimed.
template <class F, class Before>
Times times_of(F&& f, std::size_t runs, Before&& before) {
    std::vector<double> t;
    for (std::size_t i = 0; i <= runs; ++i) {
        before();
        t.push_back(seconds_of(f));
    }
    if (runs > 0) t.erase(t.begin());
    std::ranges::sort(t);
    return {t[t.size() / 2], t.front(), t.back()};
}

template <class F>
Times times_of(F&& f, std::size_t runs) {
    return times_of(f, runs, [] {});
}

/// `--name value` pairs of the command line over defaults; a name that is not among the defaults
/// throws std::invalid_argument.
class Arguments {
public:
    Arguments(int argc, char** argv, std::map<std::string, std::string> defaults)
        : values_(std::move(defaults)) {
        for (int i = 1; i < argc; i += 2) {
            const std::string word = argv[i];
            if (!word.starts_with("--") || !values_.contains(word.substr(2)) || i + 1 == argc)
                throw std::invalid_argument("unknown or incomplete option " + word + usage());
            values_[word.substr(2)] = argv[i + 1];
        }
    }
    const std::string& text(const std::string& name) const { return values_.at(name); }
    long number(const std::string& name) const { return std::stol(text(name)); }
    double real(const std::string& name) const { return std::stod(text(name)); }

private:
    std::string usage() const {
        std::string s = "; options and defaults:";
        for (const auto& [name, value] : values_) s += " --" + name + " " + value;
        return s;
    }
    std::map<std::string, std::string> values_;
};

}  // namespace eyas::bench
