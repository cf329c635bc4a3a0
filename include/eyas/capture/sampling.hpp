#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include "eyas/core/error.hpp"
#include "eyas/ops/largest.hpp"

namespace eyas {

/// Throws ContractError unless each id is one of the model's; `where` names who was given them.
inline void require_stop_ids(std::span<const std::int64_t> stop_ids, std::int64_t vocab_size,
                             const std::string& where) {
    for (const auto id : stop_ids)
        if (id < 0 || id >= vocab_size)
            throw ContractError("stop token " + std::to_string(id), where,
                                "The model's ids are below " + std::to_string(vocab_size));
}

/// How the next token is chosen.
struct SamplingOptions {
    double temperature = 0;  // of the softmax; 0: the most probable token (greedy)
    double top_p = 1;        // of the most probable tokens that together reach this (nucleus
                             // sampling: arXiv 1904.09751)
    std::uint64_t seed = 0;

    bool greedy() const { return temperature == 0; }
    /// Throws ContractError for values outside [0, 100] and (0, 1].
    void check() const {
        if (!(temperature >= 0 && temperature <= 100))
            throw ContractError("temperature is " + std::to_string(temperature), "SamplingOptions",
                                "Use 0 for greedy, else up to 100");
        if (!(top_p > 0 && top_p <= 1))
            throw ContractError("top_p is " + std::to_string(top_p), "SamplingOptions",
                                "Use more than 0 and at most 1");
    }
};

/// The most probable token of logits [V]; of equals the lowest.
inline std::int64_t most_probable(std::span<const float> logits) {
    const auto n = std::ssize(logits);
    return first_of(logits.data(), n, largest(logits.data(), n));
}

/// The same. Throws DataError where no logit is a number.
inline std::int64_t checked_most_probable(std::span<const float> logits, const char* where) {
    if (!(largest(logits.data(), std::ssize(logits)) > -std::numeric_limits<float>::infinity()))
        throw DataError("no logit is a number", where, "Check the weights of the model");
    return most_probable(logits);
}

/// Probabilities of tokens that temperature and top-p leave, in double.
class TokenDistribution {
public:
    /// Of logits [V]. With temperature 0 all of it is on most_probable(). Throws DataError where no
    /// logit is a number.
    void assign(std::span<const float> logits, const SamplingOptions& options) {
        const auto n = logits.size();
        p_.assign(n, 0.0);
        const double top = largest(logits.data(), std::ssize(logits));
        if (options.greedy() && top > -std::numeric_limits<double>::infinity()) {
            p_[static_cast<std::size_t>(most_probable(logits))] = 1;
            return;
        }
        double sum = 0;
        for (std::size_t i = 0; i < n; ++i) {
            const double z = (logits[i] - top) / options.temperature;
            p_[i] = z <= 0 ? std::exp(z) : 0;  // NaN has no probability
            sum += p_[i];
        }
        if (!(sum > 0))
            throw DataError("no logit is a number", "TokenDistribution",
                            "Check the weights of the model");
        for (auto& p : p_) p /= sum;
        if (options.top_p < 1) cut(options.top_p);
    }

    std::span<const double> probabilities() const { return p_; }
    double operator[](std::int64_t id) const { return p_[static_cast<std::size_t>(id)]; }

    /// The token in which `uniform` of [0, 1) falls, tokens in the order of their ids.
    std::int64_t draw(double uniform) const {
        double left = uniform;
        std::int64_t last = 0;
        for (std::size_t i = 0; i < p_.size(); ++i) {
            if (p_[i] <= 0) continue;
            last = static_cast<std::int64_t>(i);
            if ((left -= p_[i]) < 0) break;
        }
        return last;
    }

    /// What remains of this one where `other` was refused: max(0, p - q), scaled to 1 (speculative
    /// sampling: arXiv 2211.17192). Unchanged where nothing remains.
    void subtract(const TokenDistribution& other) {
        double sum = 0;
        for (std::size_t i = 0; i < p_.size(); ++i) sum += std::max(0.0, p_[i] - other.p_[i]);
        if (!(sum > 0)) return;
        for (std::size_t i = 0; i < p_.size(); ++i)
            p_[i] = std::max(0.0, p_[i] - other.p_[i]) / sum;
    }

private:
    /// Keeps the fewest most probable tokens that reach `mass`, lower ids first among equals.
    void cut(double mass) {
        order_.resize(p_.size());
        std::iota(order_.begin(), order_.end(), std::size_t{0});
        double sum = 0;
        std::size_t kept = 0;
        for (std::size_t chunk = 64; kept < order_.size() && sum < mass; chunk *= 4) {
            const auto end = std::min(order_.size(), kept + chunk);
            std::partial_sort(order_.begin() + static_cast<std::ptrdiff_t>(kept),
                              order_.begin() + static_cast<std::ptrdiff_t>(end), order_.end(),
                              [this](std::size_t a, std::size_t b) {
                                  return p_[a] > p_[b] || (p_[a] == p_[b] && a < b);
                              });
            while (kept < end && sum < mass) sum += p_[order_[kept++]];
        }
        for (std::size_t i = kept; i < order_.size(); ++i) p_[order_[i]] = 0;
        for (std::size_t i = 0; i < kept; ++i) p_[order_[i]] /= sum;
    }

    std::vector<double> p_;  // [V]
    std::vector<std::size_t> order_;
};

}  // namespace eyas
