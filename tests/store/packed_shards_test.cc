#include "eyas/store/packed_shards.hpp"

#include <sys/wait.h>

#include "conformance.hpp"
#include "eyas/core/convert.hpp"
#include "eyas/format/safetensors.hpp"
#include "eyas/store/local_files.hpp"
#include "eyas/store/shared_directory.hpp"
#include "scratch.hpp"
#include "tests/store/packed_samples.hpp"

using namespace eyas;
using test::PackSource;
using test::require_packed;

namespace {
PackOptions small_shards(std::uint64_t bytes = 2000) {
    return {.shard_bytes = bytes, .durable = false};
}
PackedShards::Options place(const std::filesystem::path& dir) {
    return {.root = dir, .durable = false};
}
std::size_t shards_in(const std::filesystem::path& dir) {
    return detail::ShardSet::names_in(dir).size();
}
}  // namespace

TEST_CASE("PackedShards") {
    test::Scratch dir;
    conformance::check_store<PackedShards>([&] { return place(dir.fresh()); });
}

TEST_CASE("every store that reads files reads packed samples, every bit") {
    for (const std::int64_t width : {4, 32}) {  // with padding between tensors, and without
        test::Scratch dir;
        PackSource source(9, width);
        const auto root = dir.path() / "eyas";  // the default store id
        const auto packed = pack(source.store, source.manifest, root, small_shards(3000));
        REQUIRE(packed.shards > 1);
        REQUIRE(packed.shards == shards_in(root));
        Store<PackedShards> own(place(root));
        Store<LocalFiles> files({.root = dir.path()});
        Store<SharedDirectory> shared({.root = dir.path(), .files = {.durable = false}});
        for (std::size_t i = 0; i < 9; ++i) {
            const auto& ref = packed.manifest.refs[i];
            REQUIRE(ref.generation() == 0);
            REQUIRE(ref.sample_id == source.manifest.refs[i].sample_id);
            REQUIRE(ref.feature_specs == source.manifest.refs[i].feature_specs);
            require_packed(own, ref, source.samples[i]);
            require_packed(files, ref, source.samples[i]);
            require_packed(shared, ref, source.samples[i]);
        }
        REQUIRE(own.health().resident_objects == 9);
        REQUIRE(shared.health().resident_objects == 9);
        REQUIRE(source.store.health().active_leases == 0);  // packing consumes nothing
    }
}

TEST_CASE("a shard is a safetensors file whose header says what the index says") {
    for (const std::int64_t width : {4, 32}) {
        test::Scratch dir;
        PackSource source(5, width);
        pack(source.store, source.manifest, dir.path(), {.durable = false});
        const SafetensorsFile file(dir.path() / "shard-00000.safetensors");
        const detail::PackedShard shard(file.path());
        REQUIRE(shard.index().size() == 5);
        const auto begin = file.at(detail::PackedShard::index_name).data;
        std::size_t pads = 0;
        for (const auto& t : file.tensors()) pads += t.name.starts_with("__eyas_pad__");
        REQUIRE((pads > 0) == (width == 4));
        for (std::size_t i = 0; i < 5; ++i)
            for (const auto& f : shard.index().at(i).features) {
                const auto t = file.at(std::string(shard.index().id(i)) + "/" + f.name);
                REQUIRE(t.dtype == f.dtype);
                REQUIRE(t.shape == f.shape);
                REQUIRE(static_cast<std::uint64_t>(t.data - begin) == f.data.offset);
                const auto want = f.dtype == DType::I64 ? 8u : 64u;
                REQUIRE(reinterpret_cast<std::uintptr_t>(t.data) % want == 0);
            }
    }
}

TEST_CASE("float8 states come back in their own type, near what they were") {
    for (const auto dtype : {DType::BF16, DType::F32}) {
        test::Scratch dir;
        PackSource source(4, 32, dtype);
        auto options = small_shards();
        options.states = PackedStates::Fp8E4M3;
        const auto packed = pack(source.store, source.manifest, dir.path(), options);
        Store<PackedShards> store(place(dir.path()));
        for (std::size_t i = 0; i < 4; ++i) {
            const auto& ref = packed.manifest.refs[i];
            REQUIRE(ref.feature_specs == source.manifest.refs[i].feature_specs);
            const auto lease = store.acquire(ref);
            for (const auto& t : store.view(lease)) {
                const auto& want =
                    std::ranges::find(source.samples[i].tensors, t.name, &NamedTensor::name)
                        ->tensor;
                REQUIRE(t.tensor.shape == want.shape);
                REQUIRE(t.tensor.dtype == want.dtype);
                if (t.tensor.dtype == DType::I64) {
                    REQUIRE(std::ranges::equal(t.tensor.bytes(), want.bytes()));
                    continue;
                }
                Tensor a(DType::F32, want.shape), b(DType::F32, want.shape);
                convert_into(t.tensor, a.mutable_view());
                convert_into(want, b.mutable_view());
                for (std::size_t n = 0; n < a.as<float>().size(); ++n)
                    REQUIRE(std::abs(a.as<float>()[n] - b.as<float>()[n]) <=
                            b.as<float>()[n] * (1.0f / 16 + 1.0f / 128));  // 3 and 7 bits
            }
        }
    }
}

TEST_CASE("a lease on float8 states holds nothing decoded; both ways of reading decode the same") {
    test::Scratch dir;
    PackSource source(3, 32);
    auto options = small_shards();
    options.states = PackedStates::Fp8E4M3;
    const auto packed = pack(source.store, source.manifest, dir.path(), options);
    Store<PackedShards> store(place(dir.path()));
    const auto& ref = packed.manifest.refs[1];
    const auto lease = store.acquire(ref), viewed = store.acquire(ref);
    std::vector<Tensor> memory;
    std::vector<NamedBuffer> buffers;
    for (const auto& s : ref.feature_specs) {
        memory.emplace_back(s.dtype, s.shape);
        buffers.push_back({s.name, memory.back().mutable_view()});
    }
    store.read_into(lease, buffers);
    std::size_t decoded = 0;
    for (const auto& t : store.stored(lease).tensors) decoded += !t.tensor.data;
    REQUIRE(decoded == 2);
    const auto views = store.view(viewed);
    for (std::size_t i = 0; i < buffers.size(); ++i) {
        const auto it = std::ranges::find(views, buffers[i].name, &NamedTensor::name);
        REQUIRE(std::ranges::equal(memory[i].view().bytes(), it->tensor.bytes()));
    }
}

TEST_CASE("erased samples stay erased, and a shard goes with its last sample") {
    test::Scratch dir;
    PackSource source(6);
    const auto packed = pack(source.store, source.manifest, dir.path(), small_shards());
    const auto& refs = packed.manifest.refs;
    REQUIRE(packed.shards > 1);
    {
        Store<PackedShards> store(place(dir.path()), {.retain_on_release = false});
        Store<PackedShards> other(place(dir.path()));
        auto lease = store.acquire(refs[0]);
        store.release(std::move(lease));
        REQUIRE_THROWS_AS(store.acquire(refs[0]), StaleReferenceError);
        REQUIRE_THROWS_AS(other.acquire(refs[0]), StaleReferenceError);  // dead there at once
        REQUIRE(other.health().resident_objects == 5);
    }
    Store<PackedShards> again(place(dir.path()), {.retain_on_release = false});
    REQUIRE_THROWS_AS(again.acquire(refs[0]), StaleReferenceError);
    require_packed(again, refs[5], source.samples[5]);
    REQUIRE(again.health().resident_objects == 5);  // that acquire was no consumption
    auto held = again.acquire(refs[5]);
    for (std::size_t i = 1; i < 5; ++i) again.release(again.acquire(refs[i]));
    again.backend().erase({refs[5].sample_id, 0, refs[5].feature_store_uri});
    REQUIRE(shards_in(dir.path()) == 0);
    for (const auto& t : again.view(held))  // the mapping outlives the file
        if (t.name == "input_ids")
            REQUIRE(conformance::same_bytes(t.tensor, source.samples[5].tensors[0].tensor));
    REQUIRE(again.health().resident_objects == 0);
}

TEST_CASE("a sample that is put again takes the packed one's place") {
    test::Scratch dir;
    PackSource source(3);
    const auto packed = pack(source.store, source.manifest, dir.path() / "eyas", small_shards());
    const auto check = [&](auto& store, std::size_t i) {
        const auto& old = packed.manifest.refs[i];
        const auto lease = store.acquire(old);
        const auto fresh =
            store.put(conformance::prototype(old.sample_id), conformance::Sample(7).features());
        REQUIRE(fresh.generation() == 1);
        REQUIRE_THROWS_AS(store.acquire(old), StaleReferenceError);
        conformance::require_content(store, fresh, conformance::Sample(7));
        REQUIRE(store.view(lease).size() == 4);  // held before
        REQUIRE(store.health().resident_objects == 3);
    };
    Store<PackedShards> own(place(dir.path() / "eyas"));
    check(own, 0);
    test::Scratch elsewhere;
    pack(source.store, source.manifest, elsewhere.path() / "eyas", small_shards());
    Store<SharedDirectory> shared({.root = elsewhere.path(), .files = {.durable = false}});
    check(shared, 1);
}

TEST_CASE("a writer that was killed before it buried the packed sample is ended for") {
    test::Scratch dir;
    PackSource source(3);
    const auto packed = pack(source.store, source.manifest, dir.path() / "eyas", small_shards());
    const auto put_only = [&](const std::filesystem::path& objects, const std::string& id) {
        detail::DirectoryObjects place(objects, {.durable = false});
        const conformance::Sample sample(7);
        const auto features = sample.features();
        REQUIRE(place.publish(id, features, detail::checksums_of(features, {}, id)) == 1);
    };
    put_only(dir.path() / "eyas", packed.manifest.refs[0].sample_id);
    Store<SharedDirectory> shared({.root = dir.path(), .files = {.durable = false}});
    REQUIRE_THROWS_AS(shared.acquire(packed.manifest.refs[0]), StaleReferenceError);
    put_only(dir.path() / "eyas" / ".eyas-objects", packed.manifest.refs[1].sample_id);
    Store<PackedShards> own(place(dir.path() / "eyas"));
    REQUIRE_THROWS_AS(own.acquire(packed.manifest.refs[1]), StaleReferenceError);
    require_packed(own, packed.manifest.refs[2], source.samples[2]);
}

TEST_CASE("two processes erase samples of one shard and lose none") {
    test::Scratch dir;
    PackSource source(60);
    const auto packed = pack(source.store, source.manifest, dir.path(), {.durable = false});
    REQUIRE(packed.shards == 1);
    const auto consume = [&](std::size_t from) {
        Store<PackedShards> store(place(dir.path()), {.retain_on_release = false});
        for (std::size_t i = from; i < 58; i += 2)
            store.release(store.acquire(packed.manifest.refs[i]));
    };
    const auto child = ::fork();
    if (child == 0) {
        int code = 0;
        try {
            consume(1);
        } catch (...) {
            code = 1;
        }
        ::_exit(code);
    }
    consume(0);
    int status = -1;
    ::waitpid(child, &status, 0);
    REQUIRE(status == 0);
    Store<PackedShards> store(place(dir.path()));
    REQUIRE(store.health().resident_objects == 2);
    require_packed(store, packed.manifest.refs[58], source.samples[58]);
    require_packed(store, packed.manifest.refs[59], source.samples[59]);
}

TEST_CASE("a ref never comes to mean a shard that was packed later") {
    test::Scratch dir;
    PackSource source(3), other(3, 8);
    const auto old = pack(source.store, source.manifest, dir.path(), small_shards()).manifest;
    Store<PackedShards> store(place(dir.path()));
    require_packed(store, old.refs[0], source.samples[0]);
    for (const auto& name : detail::ShardSet::names_in(dir.path()))
        std::filesystem::remove(dir.path() / name);
    const auto fresh = pack(other.store, other.manifest, dir.path(), small_shards()).manifest;
    REQUIRE_THROWS_AS(store.acquire(old.refs[0]), StaleReferenceError);
    require_packed(store, fresh.refs[0], other.samples[0]);
}

TEST_CASE("an object is one, however refs spell the way to it") {
    test::Scratch dir;
    PackSource source(3);
    const auto root = dir.path() / "eyas";
    const auto packed = pack(source.store, source.manifest, root, {.durable = false});
    const auto link = dir.path() / "link";
    std::filesystem::create_directory_symlink(root, link);
    const auto& ref = packed.manifest.refs[1];
    auto other = ref;  // as a machine spells it that has mounted the directory elsewhere
    other.feature_store_uri = "file://" + (link / "shard-00000.safetensors").string() +
                              ref.feature_store_uri.substr(ref.feature_store_uri.rfind('#'));
    const auto check = [&](auto& store) {
        auto lease = store.acquire(other);
        REQUIRE(store.collect(std::chrono::seconds(-1)) == 2);
        REQUIRE_FALSE(store.consume(ref));  // held
        REQUIRE(store.health().pending_removals == 0);
        require_packed(store, ref, source.samples[1]);
        store.release(std::move(lease));
        REQUIRE_THROWS_AS(store.acquire(ref), StaleReferenceError);
        REQUIRE_THROWS_AS(store.acquire(other), StaleReferenceError);
        REQUIRE(shards_in(root) == 0);
    };
    SECTION("packed:") {
        Store<PackedShards> store(place(root), {.retain_on_release = false});
        const auto put = store.put(conformance::prototype("p"), conformance::Sample(7).features());
        Store<PackedShards> linked(place(link));
        conformance::require_content(linked, put, conformance::Sample(7));
        auto foreign = put;
        foreign.feature_store_uri = "packed://" + (dir.path() / "p").string();
        REQUIRE_THROWS_AS(linked.acquire(foreign), ContractError);
        store.release(store.acquire(put));
        check(store);
    }
    SECTION("disagg:") {
        Store<SharedDirectory> store({.root = dir.path(), .files = {.durable = false}},
                                     {.retain_on_release = false});
        check(store);
    }
}

TEST_CASE("shards are found under whatever name a machine has for their directory") {
    test::Scratch dir;
    PackSource source(3);
    const auto packed = pack(source.store, source.manifest, dir.path() / "a", small_shards());
    std::filesystem::rename(dir.path() / "a", dir.path() / "b");
    Store<PackedShards> store(place(dir.path() / "b"));
    require_packed(store, packed.manifest.refs[2], source.samples[2]);
    auto foreign = packed.manifest.refs[2];
    auto& uri = foreign.feature_store_uri;
    uri.resize(uri.rfind('#'));  // without an identity the place has to be right
    REQUIRE_THROWS_AS(store.acquire(foreign), ContractError);
    uri = "file:///etc/passwd";
    REQUIRE_THROWS_AS(store.acquire(foreign), ContractError);
    uri = "file://" + (dir.path() / "b" / "shard-00000.safetensors").string();
    foreign.sample_id = packed.manifest.refs[0].sample_id;
    foreign.feature_keys = packed.manifest.refs[0].feature_keys;
    foreign.feature_specs = packed.manifest.refs[0].feature_specs;
    require_packed(store, foreign, source.samples[0]);
}
