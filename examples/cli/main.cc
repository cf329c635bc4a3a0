// eyas: the command line. One file per sub-command; see command.hpp for what they share.
#include <CLI/CLI.hpp>
#include <exception>
#include <iostream>
#include <vector>

#include "arguments.hpp"
#include "capture_command.hpp"
#include "command.hpp"
#include "compare_command.hpp"
#include "eval_command.hpp"
#include "export_command.hpp"
#include "ingest_command.hpp"
#include "inspect_command.hpp"
#include "pack_command.hpp"
#include "report_command.hpp"
#include "rollout_command.hpp"
#include "serve_command.hpp"
#include "train_command.hpp"
#include "vocab_map_command.hpp"

namespace {
constexpr const char* description =
    "eyas trains EAGLE3 speculative-decoding drafts from a target model's hidden states, which "
    "another\n"
    "pool of machines may have captured.\n\n"
    "The usual way:\n"
    "  eyas rollout    prompts + target model -> conversations, with features if you like\n"
    "  eyas capture    conversations + target model -> feature files (.ckpt)\n"
    "  eyas vocab-map  which target tokens the draft may speak\n"
    "  eyas ingest     feature files -> a store and a manifest          (producer pool)\n"
    "  eyas pack       samples of a store -> few large files\n"
    "  eyas serve      a store for machines that share no file system    (either pool)\n"
    "  eyas train      manifest + store -> checkpoints                  (trainer pool)\n"
    "  eyas eval       held-out accuracy and acceptance rate\n"
    "  eyas report     runs -> one HTML page with their curves\n"
    "  eyas export     checkpoint -> a directory that serving engines load\n"
    "All at once: eyas ingest --stream FILE.jsonl --watch, eyas train --follow --manifest "
    "FILE.jsonl.\n\n"
    "Stores: file:DIR (feature files where they lie), disagg:DIR?store_id=NAME (a shared "
    "directory),\n"
    "        packed:DIR (what eyas pack wrote),\n"
    "        eyas+tcp://HOST:PORT or eyas+unix:///PATH (what eyas serve listens on).\n"
    "Exit codes: 0 done, 1 error or stopped early, 2 wrong usage.";

int run(std::vector<std::string> arguments) {
    using namespace eyas::cli;
    CLI::App app{description, "eyas"};
    app.require_subcommand(1);
    std::vector<std::unique_ptr<Command>> commands;
    commands.push_back(std::make_unique<RolloutCommand>(app));
    commands.push_back(std::make_unique<CaptureCommand>(app));
    commands.push_back(std::make_unique<VocabMapCommand>(app));
    commands.push_back(std::make_unique<IngestCommand>(app));
    commands.push_back(std::make_unique<PackCommand>(app));
    commands.push_back(std::make_unique<ServeCommand>(app));
    commands.push_back(std::make_unique<TrainCommand>(app));
    commands.push_back(std::make_unique<EvalCommand>(app));
    commands.push_back(std::make_unique<ReportCommand>(app));
    commands.push_back(std::make_unique<CompareCommand>(app));
    commands.push_back(std::make_unique<ExportCommand>(app));
    commands.push_back(std::make_unique<InspectCommand>(app));
    try {
        arguments = with_config_file(std::move(arguments));
        std::reverse(arguments.begin(), arguments.end());  // the order CLI11 parses a vector in
        app.parse(arguments);
    } catch (const CLI::ParseError& e) {
        const int code = app.exit(e);
        return code == 0 ? 0 : 2;
    } catch (const eyas::Error& e) {
        std::cerr << "eyas: " << e.what() << '\n';
        return 2;
    }
    for (auto& c : commands)
        if (c->chosen()) return c->main();
    return 2;
}
}  // namespace

int main(int argc, char** argv) {
    try {
        return run({argv + 1, argv + argc});
    } catch (const std::exception& e) {
        std::cerr << "eyas: " << e.what() << '\n';
        return 1;
    }
}
