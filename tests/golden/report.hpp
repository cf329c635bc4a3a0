#pragma once
#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

namespace eyas::golden {

/// Collects comparisons and prints one line for each: case, quantity, error, bound.
class Report {
public:
    void check(const std::string& name, const std::string& quantity, double error, double bound) {
        const bool ok = error <= bound;  // NaN fails
        (ok ? passed_ : failed_)++;
        std::printf("%-6s %-24s %-52s error %.2e  bound %.2e\n", ok ? "ok" : "FAILED", name.c_str(),
                    quantity.c_str(), error, bound);
    }
    void fail(const std::string& name, const std::string& what) {
        ++failed_;
        std::printf("FAILED %-24s %s\n", name.c_str(), what.c_str());
    }
    int passed() const { return passed_; }
    int failed() const { return failed_; }

private:
    int passed_ = 0, failed_ = 0;
};

/// Largest |a - b| / max(1, |b|); infinite when the sizes differ.
inline double max_error(const std::vector<double>& a, const std::vector<double>& b) {
    if (a.size() != b.size()) return INFINITY;
    double e = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
        const double d = std::abs(a[i] - b[i]) / std::max(1.0, std::abs(b[i]));
        if (!(d <= e)) e = d;  // NaN sticks
    }
    return e;
}

/// |a - b|_2 / |b|_2.
inline double relative_l2(const std::vector<double>& a, const std::vector<double>& b) {
    if (a.size() != b.size()) return INFINITY;
    double difference = 0, norm = 0;
    for (std::size_t i = 0; i < a.size(); ++i)
        difference += (a[i] - b[i]) * (a[i] - b[i]), norm += b[i] * b[i];
    return norm > 0 ? std::sqrt(difference / norm) : std::sqrt(difference);
}

}  // namespace eyas::golden
