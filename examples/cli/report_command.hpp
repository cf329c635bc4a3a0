#pragma once
#include "command.hpp"
#include "eyas/report/page.hpp"

namespace eyas::cli {

class ReportCommand : public Command {
public:
    explicit ReportCommand(CLI::App& parent)
        : Command(
              parent, "report",
              "run directories of eyas train -> one HTML page that needs nothing else: curves of "
              "all runs over each other, final figures, configurations") {
        app_.add_option("runs", runs_, "run directories (the --out of eyas train)")
            ->required()
            ->expected(1, 12);
        app_.add_option("--out", out_, "the page")->capture_default_str();
    }

private:
    OrderedJson run() override {
        std::vector<RunRecord> records;
        for (const auto& r : runs_) records.push_back(read_run(r));
        write_text_file(out_, report_page(records));
        for (const auto& r : records)
            std::printf("%s: %zu points, %zu held out\n", r.name.c_str(), r.logged.size(),
                        r.held_out.size());
        std::printf("page: %s\n", out_.c_str());
        return {{"page", out_}, {"runs", records.size()}};
    }

    std::vector<std::string> runs_;
    std::string out_ = "report.html";
};

}  // namespace eyas::cli
