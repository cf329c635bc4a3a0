#include "eyas/trainer/identity.hpp"

#include <catch2/catch.hpp>

using namespace eyas;
using Catch::Matchers::Contains;
using detail::identity_to_resume;
using detail::position_to_resume;

namespace {
Json identity(int world, int accumulation, int batch_size, int batches_per_epoch) {
    return {{"world_size", world},
            {"accumulation", accumulation},
            {"batches_per_epoch", batches_per_epoch},
            {"seed", 5},
            {"run", {{"data", {{"batch_size", batch_size}, {"samples", 96}}}, {"model", "m"}}}};
}
CheckpointState stopped(const Json& identity, std::int64_t batch) {
    CheckpointState s;
    s.epoch = 1;
    s.batch = batch;
    s.identity = identity;
    return s;
}
std::string refused(const Json& saved, const Json& mine) {
    try {
        identity_to_resume(saved, mine, "checkpoint");
    } catch (const ContractError& e) {
        return e.what();
    }
    return "";
}
}  // namespace

TEST_CASE("in a world of the same size a resume must have all the same") {
    const auto mine = identity(2, 4, 1, 48);
    CHECK(identity_to_resume(identity(2, 2, 2, 24), mine, "") == mine);
    CHECK(position_to_resume(stopped(identity(2, 2, 2, 24), 7), mine, "") == LoaderPosition{1, 7});
    for (const Json& odd : {Json("text"), Json(), Json(7)})  // what restoring refuses by name
        CHECK(identity_to_resume(odd, mine, "") == mine);
}

TEST_CASE("in another world samples a step and an epoch must be the same, and all else") {
    const auto saved = identity(2, 4, 1, 48);
    for (const auto& mine : {identity(1, 8, 1, 96), identity(4, 2, 1, 24), identity(1, 4, 2, 48),
                             identity(8, 1, 1, 12), identity(4, 1, 2, 12)})
        CHECK(identity_to_resume(saved, mine, "") == saved);
    CHECK_THAT(
        refused(saved, identity(1, 4, 1, 96)),
        Contains("written by 2 processes") && Contains("samples_per_step: saved 8.0, now 4.0"));
    CHECK_THAT(refused(saved, identity(1, 8, 1, 97)),
               Contains("samples_per_epoch: saved 96.0, now 97.0"));
    auto other = identity(1, 8, 1, 96);
    other["seed"] = 6;
    CHECK_THAT(refused(saved, other), Contains("seed: saved 5, now 6"));
    other = identity(1, 8, 1, 96);
    other["run"]["data"]["samples"] = 97;
    CHECK_THAT(refused(saved, other), Contains("run.data.samples"));
    // A trainer without a pipeline records no batch size.
    auto a = saved, b = identity(4, 2, 9, 24);
    a["run"] = b["run"] = Json::object();
    CHECK(identity_to_resume(a, b, "") == a);
    a.erase("run");
    CHECK_THAT(refused(a, b), Contains("run: saved null, now {}"));
}

TEST_CASE("in another world a short batch at the end of an epoch would be another one") {
    const auto with = [](Json identity, const char* key, const Json& value) {
        identity["run"]["data"][key] = value;
        return identity;
    };
    // 96 samples go round in worlds of 2 and of 4, not in one of 5.
    const auto kept = [&](int world, int accumulation, int batches) {
        return with(identity(world, accumulation, 1, batches), "drop_last", false);
    };
    CHECK(identity_to_resume(kept(2, 4, 48), kept(4, 2, 24), "") == kept(2, 4, 48));
    CHECK_THAT(refused(kept(2, 5, 50), kept(5, 2, 20)), Contains("end of an epoch"));
    CHECK_THAT(refused(kept(5, 2, 20), kept(2, 5, 50)), Contains("end of an epoch"));
    auto stream = kept(2, 4, 0);
    stream["run"]["data"].erase("samples");
    CHECK_THAT(refused(stream, kept(4, 2, 0)), Contains("end of an epoch"));
    CHECK_THROWS_AS(identity_to_resume(with(kept(2, 4, 48), "drop_last", "no"), kept(4, 2, 24), ""),
                    DataError);
    // Packed rows differ in number from epoch to epoch: only whole rounds are the same everywhere.
    const auto packed = [&](int world, int accumulation, int batch, int batches) {
        return with(identity(world, accumulation, batch, batches), "pack_tokens", 64);
    };
    CHECK(identity_to_resume(packed(4, 1, 1, 3), packed(2, 1, 2, 3), "") == packed(4, 1, 1, 3));
    CHECK_THAT(refused(packed(4, 1, 1, 3), packed(2, 2, 1, 6)),
               Contains("rows_per_round: saved 4.0, now 2.0"));
    CHECK_THAT(refused(with(packed(4, 1, 1, 3), "drop_last", false),
                       with(packed(2, 1, 2, 3), "drop_last", false)),
               Contains("end of an epoch"));
}

TEST_CASE("a position is the same sample of the epoch in any world") {
    const auto saved = identity(2, 4, 2, 48);
    const auto to = [&](std::int64_t batch, const Json& mine) {
        return position_to_resume(stopped(saved, batch), mine, "checkpoint");
    };
    CHECK(to(3, identity(4, 1, 1, 1)) == LoaderPosition{1, 3});
    CHECK(to(3, identity(1, 1, 1, 1)) == LoaderPosition{1, 12});
    CHECK(to(3, identity(3, 1, 2, 1)) == LoaderPosition{1, 2});
    CHECK(to(0, identity(7, 1, 5, 1)) == LoaderPosition{1, 0});
    CHECK_THROWS_WITH(to(3, identity(4, 1, 2, 1)), Contains("12 samples") && Contains("of 8"));
}

TEST_CASE("hostile numbers in a checkpoint's identity are bad data") {
    const auto mine = identity(1, 8, 1, 96);
    const std::vector<std::pair<std::string, Json>> wrong{
        {"/world_size", 0},
        {"/world_size", -2},
        {"/world_size", 1'000'000'000'000},
        {"/world_size", "two"},
        {"/world_size", 2.5},
        {"/accumulation", "many"},
        {"/batches_per_epoch", nullptr},
        {"/run/data/batch_size", 0},
        {"/run/data/batch_size", 9'000'000'000'000'000}};
    for (const auto& [field, value] : wrong) {
        auto bad = identity(2, 4, 1, 48);
        bad[Json::json_pointer(field)] = value;
        CHECK_THROWS_AS(identity_to_resume(bad, mine, ""), DataError);
    }
    for (const std::int64_t batch : {std::int64_t{-1}, std::int64_t{1} << 62})
        CHECK_THROWS_AS(position_to_resume(stopped(identity(2, 4, 1, 48), batch), mine, ""),
                        DataError);
    auto odd = identity(2, 4, 1, 48);
    odd["run"] = "text";
    CHECK_THROWS_AS(identity_to_resume(odd, mine, ""), ContractError);
}
