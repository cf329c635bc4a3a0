#include "eyas/collective/rendezvous.hpp"

#include <catch2/catch.hpp>
#include <map>
#include <string>

using namespace eyas;
using Catch::Matchers::StartsWith;

namespace {
using Variables = std::map<std::string, std::string>;

Rendezvous of(const Variables& variables) {
    return rendezvous_from_environment([&](const char* name) -> const char* {
        const auto found = variables.find(name);
        return found == variables.end() ? nullptr : found->second.c_str();
    });
}
std::string error_of(const Variables& variables) {
    try {
        of(variables);
    } catch (const ContractError& e) {
        return e.what();
    }
    return "";
}
Variables with(Variables all, const std::string& name, const std::string& value) {
    all[name] = value;
    return all;
}
const Variables torchrun{
    {"RANK", "1"}, {"WORLD_SIZE", "4"}, {"MASTER_ADDR", "10.0.0.7"}, {"MASTER_PORT", "29500"}};
}  // namespace

TEST_CASE("without a launcher there is one process") {
    for (const Variables& v : {Variables{}, Variables{{"RANK", ""}, {"WORLD_SIZE", ""}},
                               Variables{{"MASTER_ADDR", "10.0.0.7"}},
                               // A batch script of Slurm is one process, not one of its tasks.
                               Variables{{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "8"}},
                               Variables{{"RANK", "0"}, {"WORLD_SIZE", "1"}}}) {
        const auto r = of(v);
        CHECK(r.rank == 0);
        CHECK(r.world == 1);
    }
}

TEST_CASE("each launcher's variables are read") {
    const auto t = of(torchrun);
    CHECK(t.rank == 1);
    CHECK(t.world == 4);
    CHECK(t.address == "10.0.0.7");
    CHECK(t.port == 29500);
    CHECK(t.timeout == std::chrono::seconds(60));

    // torchrun whose agent listens at MASTER_PORT itself.
    const auto agent = with(torchrun, "TORCHELASTIC_USE_AGENT_STORE", "True");
    CHECK(of(agent).port == 29501);
    CHECK(of(with(agent, "MASTER_PORT", "65535")).port == 65534);
    CHECK(of(with(torchrun, "TORCHELASTIC_USE_AGENT_STORE", "False")).port == 29500);

    const Variables mpirun{{"OMPI_COMM_WORLD_RANK", "2"},
                           {"OMPI_COMM_WORLD_SIZE", "3"},
                           {"OMPI_COMM_WORLD_LOCAL_SIZE", "3"},
                           {"MASTER_PORT", "29500"}};
    CHECK(of(mpirun).rank == 2);
    CHECK(of(mpirun).world == 3);
    CHECK(of(mpirun).address == "127.0.0.1");  // all of them are here
    CHECK_THAT(error_of(with(mpirun, "OMPI_COMM_WORLD_LOCAL_SIZE", "1")),
               StartsWith("MASTER_ADDR: is missing."));
    CHECK(of(with(mpirun, "MASTER_ADDR", "a")).address == "a");

    const Variables srun{{"SLURM_PROCID", "5"},
                         {"SLURM_NTASKS", "8"},
                         {"SLURM_STEP_ID", "0"},
                         {"SLURM_STEP_NODELIST", "node[003-010,12],x"},
                         {"SLURM_LAUNCH_NODE_IPADDR", "10.0.0.1"},
                         {"MASTER_PORT", "29500"}};
    CHECK(of(srun).rank == 5);
    CHECK(of(srun).world == 8);
    CHECK(of(srun).address == "node003");
    CHECK(of(with(srun, "SLURM_STEP_NUM_TASKS", "6")).world == 6);
    CHECK(of(with(srun, "MASTER_ADDR", "10.0.0.7")).address == "10.0.0.7");
    CHECK_THAT(error_of(with(srun, "SLURM_DISTRIBUTION", "arbitrary")),
               StartsWith("MASTER_ADDR: is missing."));
    // What is set by hand goes before what the launcher says.
    const auto by_hand = with(with(srun, "RANK", "0"), "WORLD_SIZE", "2");
    CHECK(of(with(by_hand, "MASTER_ADDR", "b")).world == 2);
    CHECK_THAT(error_of(by_hand), StartsWith("MASTER_ADDR: is missing."));
}

TEST_CASE("the first host of a Slurm list") {
    CHECK(detail::first_host("a") == "a");
    CHECK(detail::first_host("a,b") == "a");
    CHECK(detail::first_host("a[7]") == "a7");
    CHECK(detail::first_host("a[07-09,11]-ib,b") == "a07-ib");
    CHECK(detail::first_host("rack[1-2]n[01,04]") == "rack1n01");
    for (const char* bad : {"", ",a", "a[", "a[]", "a[-3]", "a b", "a;b", "a]"})
        CHECK_THROWS_AS(detail::first_host(bad), ContractError);
}

TEST_CASE("a missing variable is named, with what to do") {
    CHECK_THAT(error_of({{"RANK", "1"}}), StartsWith("WORLD_SIZE: is missing."));
    CHECK_THAT(error_of({{"WORLD_SIZE", "2"}}), StartsWith("RANK: is missing."));
    CHECK_THAT(error_of({{"OMPI_COMM_WORLD_SIZE", "2"}}),
               StartsWith("OMPI_COMM_WORLD_RANK: is missing."));
    CHECK_THAT(error_of(with(torchrun, "MASTER_ADDR", "")), StartsWith("MASTER_ADDR: is missing."));
    CHECK_THAT(error_of(with(torchrun, "MASTER_PORT", "")), StartsWith("MASTER_PORT: is missing."));
}

TEST_CASE("hostile values are refused by name") {
    for (const char* bad :
         {"-1", "4", "5", "one", "1x", " 1", "0x1", "1.0", "99999999999999999999"})
        CHECK_THAT(
            error_of(with(torchrun, "RANK", bad)),
            StartsWith("RANK: is '" + std::string(bad) + "', not a whole number from 0 to 3."));
    for (const char* bad : {"0", "-2", "257", "many", "4 ", "18446744073709551620"})
        CHECK_THAT(error_of(with(torchrun, "WORLD_SIZE", bad)), StartsWith("WORLD_SIZE: is '"));
    for (const char* bad : {"0", "-1", "65536", "http", "29500/"})
        CHECK_THAT(error_of(with(torchrun, "MASTER_PORT", bad)), StartsWith("MASTER_PORT: is '"));
}
