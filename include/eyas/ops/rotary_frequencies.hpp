#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <vector>

#include "eyas/format/hf_config.hpp"

namespace eyas {

/// What a rotary variant reduces to. Source of the variants: SpecForge's draft attention, which
/// follows Hugging Face's rope types.
struct RotaryFrequencies {
    std::vector<float> inverse;          // [E/2] inverse frequencies
    float position_divisor = 1.f;        // linear scaling divides positions, not frequencies
    float amplitude = 1.f;               // yarn multiplies cos and sin
    std::vector<std::int64_t> sections;  // mrope: frequencies per axis, as in the config
};

namespace detail {

inline std::vector<float> plain_inverse_frequencies(std::int64_t width, float base) {
    std::vector<float> f;
    for (std::int64_t j = 0; j < width; j += 2)
        f.push_back(1.f / std::pow(base, static_cast<float>(j) / static_cast<float>(width)));
    return f;
}

// Long wavelengths are divided by the factor, short ones kept, those between interpolated.
inline void scale_llama3(std::vector<float>& inverse, const RopeScaling& s,
                         const std::string& where) {
    const auto factor = static_cast<float>(s.number("factor", where));
    const auto low = s.number("low_freq_factor", where), high = s.number("high_freq_factor", where);
    const auto original = s.number("original_max_position_embeddings", where);
    for (float& f : inverse) {
        const float wave = 2.f * std::numbers::pi_v<float> / f;
        if (wave < static_cast<float>(original / high)) continue;
        const float scaled = f / factor;
        if (wave > static_cast<float>(original / low)) {
            f = scaled;
        } else {
            const float smooth =
                low == high ? 0.f
                            : (static_cast<float>(original) / wave - static_cast<float>(low)) /
                                  static_cast<float>(high - low);
            f = (1.f - smooth) * f / factor + smooth * f;
        }
    }
}

// YaRN (arXiv 2309.00071): interpolated and original frequencies blended by a ramp over dimensions.
inline void scale_yarn(RotaryFrequencies& r, const ModelConfig& c, const std::string& where) {
    const auto& s = c.rope_scaling;
    const auto width = static_cast<double>(c.head_dim);
    const auto factor = s.number("factor", where);
    const auto original = s.number("original_max_position_embeddings", where);
    const auto dimension = [&](double rotations) {
        return width * std::log(original / (rotations * 2 * std::numbers::pi)) /
               (2 * std::log(c.rope_theta));
    };
    const auto low =
        static_cast<float>(std::max(std::floor(dimension(s.number("beta_fast", where))), 0.0));
    auto high =
        static_cast<float>(std::min(std::ceil(dimension(s.number("beta_slow", where))), width - 1));
    if (low == high) high += 0.001f;
    for (std::size_t j = 0; j < r.inverse.size(); ++j) {
        const float keep = 1.f - std::clamp((static_cast<float>(j) - low) / (high - low), 0.f, 1.f);
        const float original_f = r.inverse[j];
        const float slower = 1.f / (static_cast<float>(factor) / original_f);
        r.inverse[j] = slower * (1.f - keep) + original_f * keep;
    }
    const auto scale = [&](double m) {
        return factor <= 1 ? 1.0 : 0.1 * m * std::log(factor) + 1.0;
    };
    r.amplitude = static_cast<float>(scale(s.number("mscale", where)) /
                                     scale(s.number("mscale_all_dim", where)));
}

// The base grows with the table, which is always 20 rows longer than max_position_embeddings.
inline float dynamic_base(const ModelConfig& c, double factor) {
    const auto length = static_cast<double>(c.max_position_embeddings + 20);
    const auto ratio =
        factor * length / static_cast<double>(c.max_position_embeddings) - (factor - 1);
    const auto width = static_cast<double>(c.head_dim);
    return static_cast<float>(c.rope_theta * std::pow(ratio, width / (width - 2)));
}

inline std::vector<std::int64_t> mrope_sections(const ModelConfig& c, const std::string& where) {
    auto sections =
        required<std::vector<std::int64_t>>(c.rope_scaling.fields, "mrope_section", where);
    std::int64_t total = 0;
    for (auto s : sections) total += s > 0 && s <= c.head_dim ? s : c.head_dim;
    if (sections.size() != 3 || 2 * total != c.head_dim)
        throw DataError("mrope_section must have 3 positive entries that add up to head_dim/2",
                        where, "Correct rope_scaling.mrope_section");
    return sections;
}

}  // namespace detail

/// The frequencies of a config's rope variant: default, linear, dynamic, llama3, yarn, mrope.
inline RotaryFrequencies rotary_frequencies(const ModelConfig& c) {
    const std::string where = "rope_scaling (" + c.rope_scaling.type + ")";
    const auto& type = c.rope_scaling.type;
    RotaryFrequencies r;
    auto base = static_cast<float>(c.rope_theta);
    if (type == "dynamic") base = detail::dynamic_base(c, c.rope_scaling.number("factor", where));
    r.inverse = detail::plain_inverse_frequencies(c.head_dim, base);
    if (type == "linear")
        r.position_divisor = static_cast<float>(c.rope_scaling.number("factor", where));
    if (type == "llama3") detail::scale_llama3(r.inverse, c.rope_scaling, where);
    if (type == "yarn") detail::scale_yarn(r, c, where);
    if (type == "mrope") r.sections = detail::mrope_sections(c, where);
    return r;
}

}  // namespace eyas
