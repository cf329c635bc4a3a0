#include <catch2/catch.hpp>

#include "eyas/report/page.hpp"
#include "tests/store/scratch.hpp"

using namespace eyas;
using Catch::Matchers::Contains;

namespace {
std::filesystem::path run_in(const test::Scratch& dir, const std::string& name,
                             const std::string& metrics, const std::string& about = "") {
    const auto path = dir.path() / name;
    eyas::create_directories(path);
    write_text_file(path / "metrics.jsonl", metrics);
    if (!about.empty()) write_text_file(path / "run.json", about);
    return path;
}
}  // namespace

TEST_CASE("a run is its points in order; a resumed run's repeated steps count once") {
    const test::Scratch dir;
    const auto run = read_run(run_in(dir, "r",
                                     "{\"step\":1,\"loss\":3}\n{\"step\":2,\"loss\":2}\n"
                                     "{\"held_out\":{\"step\":2,\"loss\":9}}\n"
                                     "{\"step\":3,\"loss\":1}\n{\"step\":2,\"loss\":5}\n"
                                     "{\"step\":3,\"lo",
                                     "{\"configuration\":{\"lr\":0.5}}"));
    CHECK(run.name == "r");
    REQUIRE(run.logged.size() == 2);
    CHECK(run.logged[1].at("loss") == 5);
    REQUIRE(run.held_out.size() == 1);
    CHECK(run.held_out[0].at("loss") == 9);
    CHECK(run.about.at("configuration").at("lr") == 0.5);
}

TEST_CASE("what is no run is refused with its place") {
    const test::Scratch dir;
    CHECK_THROWS_WITH(read_run(dir.path()), Contains("metrics.jsonl"));
    CHECK_THROWS_WITH(read_run(run_in(dir, "a", "{\"step\":1}\n[]\n")), Contains("line 2"));
    CHECK_THROWS_WITH(read_run(run_in(dir, "b", "{\"loss\":1}\n")), Contains("step"));
    CHECK_THROWS_WITH(read_run(run_in(dir, "c", "", "[")), Contains("run.json"));
    CHECK_THROWS_AS(report_page({}), ContractError);
}

TEST_CASE("a page holds every run's data, and no text of a run can end its script") {
    const test::Scratch dir;
    const std::vector<RunRecord> runs{
        read_run(run_in(dir, "one", "{\"step\":1,\"loss\":3.25}\n")),
        read_run(run_in(dir, "<b>", "{\"step\":1,\"loss\":4.5}\n",
                        "{\"configuration\":{\"x\":\"</script><script>alert(1)//\"}}"))};
    const auto page = report_page(runs);
    CHECK_THAT(page, Contains("\"one\"") && Contains("3.25") && Contains("4.5"));
    CHECK_THAT(page, !Contains("</script><script>alert") && !Contains("<b>"));
    const std::string begin = "id=\"runs\">";
    const auto from = page.find(begin) + begin.size();
    const auto data = OrderedJson::parse(page.substr(from, page.find("</script>", from) - from));
    CHECK(data[1].at("name") == "<b>");
    CHECK(data[1].at("about").at("configuration").at("x") == "</script><script>alert(1)//");
}
