#include "eyas/ingest/pack.hpp"

#include <catch2/catch.hpp>
#include <fstream>

#include "eyas/ingest/scan.hpp"
#include "eyas/store/local_files.hpp"
#include "eyas/store/shared_directory.hpp"
#include "tests/ingest/feature_directory.hpp"
#include "tests/store/packed_samples.hpp"

using namespace eyas;
using Catch::Matchers::Contains;
using test::FakeSample;
using test::FeatureDirectory;
using test::PackSource;
using test::require_packed;

namespace {
/// The last rows of a sample become padding: token 0, not supervised.
void pad(FakeSample& s, std::size_t from) {
    for (auto& t : {std::ref(s.owned[0]), std::ref(s.owned[1])}) {
        auto values = t.get().as<std::int64_t>();
        std::ranges::fill(values.subspan(from), 0);
    }
}
}  // namespace

TEST_CASE("pad rows are left out, but never the row after the last supervised one") {
    const FeatureDirectory dir("pack_padding");
    PackSource source(4, 32);  // 5, 6, 7 and 8 rows
    pad(source.samples[1], 3);
    pad(source.samples[2], 1);
    source.samples[3].owned[0].as<std::int64_t>()[7] = 0;  // token 0, but supervised
    for (int i = 1; i < 4; ++i) source.put(i);
    const auto packed = pack(source.store, source.manifest, dir.path() / "a", {.durable = false});
    const std::int64_t rows[] = {5, 4, 2, 8};
    Store<PackedShards> store({.root = dir.path() / "a"});
    for (std::size_t i = 0; i < 4; ++i) {
        CHECK(packed.manifest.refs[i].num_tokens == rows[i]);
        CHECK(packed.manifest.refs[i].spec("aux_hidden_state").shape == Shape{1, rows[i], 96});
        require_packed(store, packed.manifest.refs[i], source.samples[i]);
    }
    CHECK(packed.rows == 26);
    CHECK(packed.rows_stripped == 7);
    CHECK(packed.bytes_stripped == 7 * (2 * 8 + 4 * 32 * 2));

    const auto whole = pack(source.store, source.manifest, dir.path() / "b",
                            {.keep_padding = true, .durable = false});
    CHECK(whole.rows_stripped == 0);
    Store<PackedShards> kept({.root = dir.path() / "b"});
    for (std::size_t i = 0; i < 4; ++i) {
        CHECK(whole.manifest.refs[i].feature_specs == source.manifest.refs[i].feature_specs);
        require_packed(kept, whole.manifest.refs[i], source.samples[i]);
    }
}

TEST_CASE("the row of a mask whose only supervised token is the last stays whole") {
    const std::vector<std::int64_t> ids{7, 0, 0, 0}, none(4, 0), last{0, 0, 0, 1},
        middle{0, 1, 0, 0};
    CHECK(detail::rows_without_padding(ids, none) == 1);
    CHECK(detail::rows_without_padding(ids, last) == 4);
    CHECK(detail::rows_without_padding(ids, middle) == 3);
    CHECK(detail::rows_without_padding(none, none) == 1);
}

TEST_CASE("feature files are packed where they lie, without a manifest") {
    const FeatureDirectory dir("pack_files");
    for (int i = 0; i < 3; ++i) dir.add(std::to_string(i) + ".ckpt", i + 1);
    Store<LocalFiles> store({.root = dir.path()});
    const auto packed = pack(store, scan_features(dir.path(), {.read_headers = false}),
                             dir.path() / "packed", {.durable = false});
    for (std::size_t i = 0; i < 3; ++i)
        require_packed(store, packed.manifest.refs[i],
                       FakeSample(6, 4, static_cast<std::int64_t>(i) + 1));
}

TEST_CASE("a shard is as large as was asked for, and the same call gives the same bytes") {
    const FeatureDirectory dir("pack_sizes");
    PackSource source(30, 32);
    const PackOptions options{.shard_bytes = 30'000, .durable = false};
    const auto a = pack(source.store, source.manifest, dir.path() / "a", options);
    CHECK(a.shards > 3);
    CHECK(a.reused == 0);
    for (const auto& name : detail::ShardSet::names_in(dir.path() / "a"))
        CHECK(std::filesystem::file_size(dir.path() / "a" / name) <= 30'000);
    const auto again = pack(source.store, source.manifest, dir.path() / "a", options);
    CHECK(again.reused == a.shards);
    CHECK(again.manifest == a.manifest);
    CHECK(again.bytes == a.bytes);
    const auto tiny =
        pack(source.store, source.manifest, dir.path() / "b", {.shard_bytes = 1, .durable = false});
    CHECK(tiny.shards == 30);  // a sample is never cut
}

TEST_CASE("a file of a shard's name that is none, or damaged, is not written over") {
    const FeatureDirectory dir("pack_repair");
    PackSource source(3);
    const auto shard = dir.path() / "shard-00000.safetensors";
    const auto packed = [&] {
        return pack(source.store, source.manifest, dir.path(), {.durable = false});
    };
    write_safetensors(shard, source.samples[0].tensors);
    const auto foreign = read_text_file(shard);
    CHECK_THROWS_WITH(packed(), Contains("shard-00000") && Contains("Remove it"));
    CHECK(read_text_file(shard) == foreign);
    std::filesystem::remove(shard);
    const auto a = packed();
    std::filesystem::resize_file(shard, 700);
    CHECK_THROWS_AS(packed(), ContractError);
    std::filesystem::remove(shard);
    const auto b = packed();
    CHECK(b.reused == 0);
    CHECK(b.manifest == a.manifest);
    Store<PackedShards> store({.root = dir.path()});
    require_packed(store, b.manifest.refs[1], source.samples[1]);
}

TEST_CASE("samples are not packed beside the same samples as objects") {
    const FeatureDirectory dir("pack_beside");
    PackSource source(3);
    Store<SharedDirectory> objects({.root = dir.path(), .store_id = "run"});
    auto prototype = source.manifest.refs[1];
    const auto ref =
        objects.put({.sample_id = prototype.sample_id, .run_id = "run"}, source.samples[1].tensors);
    CHECK_THROWS_WITH(pack(source.store, source.manifest, dir.path() / "run", {.durable = false}),
                      Contains(prototype.sample_id) && Contains("hide"));
    eyas::create_directories(dir.path() / "packed");
    Store<PackedShards> beside({.root = dir.path() / "packed"});
    beside.put({.sample_id = prototype.sample_id, .run_id = "run"}, source.samples[1].tensors);
    CHECK_THROWS_AS(pack(source.store, source.manifest, dir.path() / "packed", {.durable = false}),
                    ContractError);
    CHECK(objects.view(objects.acquire(ref)).size() == 4);
}

TEST_CASE("files that were captured again are packed again") {
    const FeatureDirectory dir("pack_again");
    const auto packed = [&] {
        Store<LocalFiles> store({.root = dir.path()});
        return pack(store, scan_features(dir.path(), {.read_headers = false}),
                    dir.path() / "packed", {.durable = false});
    };
    dir.add("0.ckpt", 1);
    CHECK(packed().reused == 0);
    CHECK(packed().reused == 1);
    dir.add("0.ckpt", 2);  // the same path, other bytes
    CHECK_THROWS_WITH(packed(), Contains("lie here"));
}

TEST_CASE("a directory with other shards, or with consumed samples, is left alone") {
    const FeatureDirectory dir("pack_others");
    PackSource source(6), fewer(2);
    const PackOptions options{.shard_bytes = 2'000, .durable = false};
    const auto packed = pack(source.store, source.manifest, dir.path(), options);
    auto fp8 = options;
    fp8.states = PackedStates::Fp8E4M3;
    const auto refused = [&](auto& from, const PackOptions& o, const char* what) {
        CHECK_THROWS_WITH(pack(from.store, from.manifest, dir.path(), o), Contains(what));
    };
    refused(source, fp8, "lie here");
    refused(fewer, options, "lie here");
    {
        const detail::DirectoryLock busy(dir.path(), "busy", "Wait");
        refused(source, options, "being packed");
    }
    Store<PackedShards> store({.root = dir.path(), .durable = false}, {.retain_on_release = false});
    require_packed(store, packed.manifest.refs[5], source.samples[5]);
    store.release(store.acquire(packed.manifest.refs[0]));
    refused(source, options, "consumed");
}

TEST_CASE("an ended call leaves nothing half done; a bad sample is named") {
    const FeatureDirectory dir("pack_end");
    PackSource source(3);
    CHECK_THROWS_WITH(pack(source.store, source.manifest, dir.path() / "a", {.durable = false},
                           [](const PackProgress& p) {
                               if (p.done == 2) throw ResourceError("interrupted", "a", "Again");
                           }),
                      Contains("interrupted"));
    CHECK(detail::ShardSet::names_in(dir.path() / "a").empty());
    source.samples[1].owned[2].as<BFloat16>()[0] =
        BFloat16(std::numeric_limits<float>::quiet_NaN());
    source.put(1);
    CHECK_THROWS_WITH(pack(source.store, source.manifest, dir.path() / "b",
                           {.states = PackedStates::Fp8E4M3, .durable = false}),
                      Contains("'s1'") && Contains("NaN"));
}

TEST_CASE("a packed directory asks for the token that it was packed with") {
    const FeatureDirectory dir("pack_token");
    PackSource source(2);
    const auto packed =
        pack(source.store, source.manifest, dir.path(), {.durable = false, .auth_token = "secret"});
    CHECK_THROWS_AS(Store<PackedShards>({.root = dir.path()}), AuthenticationError);
    CHECK_THROWS_AS(Store<LocalFiles>({.root = dir.path()}, {.auth_token = "other"}),
                    AuthenticationError);
    Store<PackedShards> store({.root = dir.path()}, {.auth_token = "secret"});
    require_packed(store, packed.manifest.refs[1], source.samples[1]);
}

TEST_CASE("a token that a packed directory does not get is told") {
    const FeatureDirectory dir("pack_late_token");
    PackSource source(2);
    const auto again = [&](const std::string& token) {
        return pack(source.store, source.manifest, dir.path(),
                    {.durable = false, .auth_token = token});
    };
    again("");
    CHECK_THROWS_WITH(again("secret"), Contains("without a token"));
    std::filesystem::remove(dir.path() / "shard-00000.safetensors");
    again("secret");
    CHECK_THROWS_AS(again("other"), AuthenticationError);
    CHECK(again("secret").reused == 1);
}
