#include "eyas/device/cpu.hpp"
#include "eyas/format/safetensors.hpp"
#include "eyas/ops/rotary.hpp"
#include "finite_difference.hpp"

using namespace eyas;
using namespace eyas::test;

namespace {
ModelConfig config_of(const Json& variant) {
    Json j = variant;
    j.update(Json{{"hidden_size", 64},
                  {"intermediate_size", 8},
                  {"num_attention_heads", 1},
                  {"vocab_size", 8}});
    return parse_model_config(j, "variant");
}
}  // namespace

TEST_CASE("rotary tables equal the reference's for every variant") {
    const auto variants = read_json_file("tests/ops/testdata/rope_tables.json").at("variants");
    const SafetensorsFile tables("tests/ops/testdata/rope_tables.safetensors");
    REQUIRE(variants.size() == 6);
    for (const auto& [name, variant] : variants.items()) {
        INFO(name);
        const auto config = config_of(variant);
        const auto positions = tables.at(name + ".positions").as<std::int64_t>();
        const auto rows = *std::max_element(positions.begin(), positions.end()) + 1;
        const RotaryTable exact(config, rows), rounded(config, rows, DType::BF16);
        const auto frequencies = rotary_frequencies(config);
        const auto inverse = tables.at(name + ".inv_freq").as<float>();
        for (std::size_t j = 0; j < inverse.size();
             ++j)  // pow and one division: 3 units in the last place
            REQUIRE(frequencies.inverse[j] == Approx(inverse[j]).epsilon(3 * 0x1.0p-23));
        const auto cos = tables.at(name + ".cos").as<float>(),
                   sin = tables.at(name + ".sin").as<float>();
        const auto cos16 = tables.at(name + ".cos_bf16").as<BFloat16>();
        for (std::size_t r = 0; r < positions.size(); ++r)
            for (std::int64_t e = 0; e < config.head_dim; ++e) {
                const auto at =
                    r * static_cast<std::size_t>(config.head_dim) + static_cast<std::size_t>(e);
                // An angle of up to `position` radians carries 3 units of relative error.
                const double bound = (static_cast<double>(positions[r]) * 3 + 2) * 0x1.0p-23;
                REQUIRE(std::abs(exact.cos(positions[r])[e] - cos[at]) <= bound);
                REQUIRE(std::abs(exact.sin(positions[r])[e] - sin[at]) <= bound);
                REQUIRE(std::abs(rounded.cos(positions[r])[e] - static_cast<float>(cos16[at])) <=
                        bound + 0x1.0p-8);
            }
    }
}

TEST_CASE("rotary backward is the transpose of its forward") {
    const auto config = config_of(Json{{"head_dim", 8}, {"rope_theta", 100.0}});
    const RotaryTable table(config, 16);
    const std::vector<std::int64_t> positions{0, 3, 7};
    const RotaryRows angles(table, positions, 3, 8, 2);
    const Cpu cpu;
    auto x = random_values(3 * 16, 1);
    const auto mix = random_values(3 * 16, 2);
    const auto loss = [&] {
        auto y = x;
        rotary(cpu, y.data(), 3, 16, 2, 8, angles, 1.f);
        return weighted(y, mix);
    };
    auto dx = mix;
    rotary(cpu, dx.data(), 3, 16, 2, 8, angles, -1.f);
    require_gradient(x, dx, loss);
}

TEST_CASE("rope parameters that are missing are named") {
    const auto config = config_of(
        Json{{"head_dim", 8}, {"rope_scaling", {{"rope_type", "llama3"}, {"factor", 8.0}}}});
    REQUIRE_THROWS_WITH(RotaryTable(config, 1), Catch::Contains("low_freq_factor"));
    const auto sections = config_of(
        Json{{"head_dim", 8}, {"rope_scaling", {{"type", "mrope"}, {"mrope_section", {1, 1, 1}}}}});
    REQUIRE_THROWS_AS(RotaryTable(sections, 1), DataError);
}
