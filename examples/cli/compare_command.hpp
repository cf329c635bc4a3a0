#pragma once
#include "checkpoints.hpp"
#include "command.hpp"
#include "eyas/checkpoint/compare.hpp"

namespace eyas::cli {

class CompareCommand : public Command {
public:
    explicit CompareCommand(CLI::App& parent)
        : Command(
              parent, "compare",
              "compare two checkpoints or tensor files bit by bit; exit code 1 when they differ") {
        app_.add_option(
                "first", first_,
                "checkpoint directory, run directory (its newest), .safetensors, .pt or .ckpt")
            ->required();
        app_.add_option("second", second_, "likewise")->required();
    }

private:
    /// A run directory stands for its newest checkpoint; anything else for itself.
    static std::filesystem::path resolve(const std::string& path) {
        return std::filesystem::is_directory(path) && !checkpoint_directories(path).empty()
                   ? newest_checkpoint(path)
                   : std::filesystem::path(path);
    }

    OrderedJson run() override {
        const auto a = resolve(first_), b = resolve(second_);
        const auto c = compare_tensors(a, b);
        OrderedJson differences = OrderedJson::array();
        for (const auto& d : c.differences) {
            std::printf("%s: %s", d.name.c_str(), d.what.c_str());
            if (d.what == "values")
                std::printf(" differ in %lld of %lld elements, by up to %g",
                            static_cast<long long>(d.count), static_cast<long long>(d.elements),
                            d.max_abs);
            std::printf("\n");
            differences.push_back(
                {{"name", d.name}, {"what", d.what}, {"count", d.count}, {"elements", d.elements}});
        }
        if (!c.identical())
            throw DataError(std::to_string(c.differences.size()) + " of " +
                                std::to_string(c.tensors) + " tensors differ",
                            a.string() + " and " + b.string(), "See the list above");
        std::printf("identical: %lld tensors, %s, every bit (%s, %s)\n",
                    static_cast<long long>(c.tensors),
                    bytes_text(static_cast<double>(c.bytes)).c_str(), a.c_str(), b.c_str());
        return {{"identical", true},
                {"tensors", c.tensors},
                {"bytes", c.bytes},
                {"first", a.string()},
                {"second", b.string()}};
    }

    std::string first_, second_;
};

}  // namespace eyas::cli
