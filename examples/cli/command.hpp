#pragma once
#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>
#include <string>

#include "console.hpp"
#include "eyas/core/json.hpp"
#include "eyas/core/stop_signals.hpp"

namespace eyas::cli {

/// One sub-command: options are declared in the constructor, run() does the work and returns what
/// --json prints as the last line.
class Command {
public:
    Command(CLI::App& parent, const char* name, const char* help)
        : app_(*parent.add_subcommand(name, help)) {
        app_.add_flag("--json", json_, "print the result as one JSON object on the last line");
        // Read before parsing (arguments.hpp); declared so that --help shows it.
        app_.add_option(
            "--config", config_,
            "a JSON file with options: {\"max-steps\": 100, ...}; the command line wins");
    }
    virtual ~Command() = default;
    Command(const Command&) = delete;
    Command& operator=(const Command&) = delete;

    bool chosen() const { return app_.parsed(); }

    /// Exit code: 0, 1 on errors and when a signal ended the work early.
    int main() {
        catch_stop_signals();
        OrderedJson result;
        int code = 0;
        try {
            result = run();
            if (stop_requested() && !until_stopped_) code = 1;
        } catch (const std::exception& e) {
            std::fflush(stdout);
            std::fprintf(stderr, "eyas %s: %s\n", app_.get_name().c_str(), e.what());
            result = OrderedJson{{"error", e.what()}};
            code = 1;
        }
        result["ok"] = code == 0;
        if (json_)
            std::printf("%s\n",
                        result.dump(-1, ' ', false, OrderedJson::error_handler_t::replace).c_str());
        return code;
    }

protected:
    virtual OrderedJson run() = 0;

    /// Every option of this sub-command by its name, as given or by default.
    OrderedJson configuration() const {
        OrderedJson all;
        for (const auto* o : app_.get_options()) {
            const auto name = o->get_single_name();
            if (name == "help" || name == "json" || name == "config") continue;
            std::string text;
            for (const auto& r : o->results()) text += (text.empty() ? "" : " ") + r;
            all[name] = o->count() > 0 ? text : o->get_default_str();
        }
        return all;
    }
    CLI::App& app_;
    bool until_stopped_ = false;  // a signal is how it is meant to end

private:
    bool json_ = false;
    std::string config_;
};

}  // namespace eyas::cli
