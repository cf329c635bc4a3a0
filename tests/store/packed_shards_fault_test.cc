#include <signal.h>
#include <sys/wait.h>

#include <fstream>
#include <random>

#include "eyas/store/local_files.hpp"
#include "eyas/store/shared_directory.hpp"
#include "scratch.hpp"
#include "tests/store/packed_samples.hpp"

using namespace eyas;
using test::PackSource;
using test::require_packed;

namespace {

const char* const first_shard = "shard-00000.safetensors";

/// One shard of four samples, its bytes, and refs.
struct OneShard {
    test::Scratch dir = {};
    PackSource source{4, 32};
    std::filesystem::path path = dir.path() / first_shard;
    Manifest manifest = {};
    std::string good = {};

    explicit OneShard(PackedStates states = PackedStates::Keep) {
        manifest =
            pack(source.store, source.manifest, dir.path(), {.states = states, .durable = false})
                .manifest;
        good = read_text_file(path);
    }
    void write(const std::string& bytes) const {
        std::filesystem::remove(path);  // another inode, as a copy would be
        std::ofstream(path, std::ios::binary) << bytes;
    }
    std::size_t data_at() const { return 8 + number<std::uint64_t>(good, 0); }

    template <class T>
    static T number(const std::string& bytes, std::size_t at) {
        T v;
        std::memcpy(&v, bytes.data() + at, sizeof v);
        return v;
    }
    /// Reads every sample by every way there is; what it throws is the test's business.
    void read_all() const {
        Store<PackedShards> store({.root = dir.path()});
        for (const auto& ref : manifest.refs) {
            auto r = ref;
            r.feature_store_uri.resize(r.feature_store_uri.rfind('#'));
            const auto lease = store.acquire(r);
            std::vector<Tensor> memory;
            std::vector<NamedBuffer> buffers;
            for (const auto& s : ref.feature_specs) {
                memory.emplace_back(s.dtype, s.shape);
                buffers.push_back({s.name, memory.back().mutable_view()});
            }
            std::exception_ptr read;
            try {
                store.read_into(lease, buffers);
            } catch (const DataError&) {
                read = std::current_exception();
            }
            std::exception_ptr seen;
            try {
                (void)store.view(lease);
            } catch (const DataError&) {
                seen = std::current_exception();
            }
            REQUIRE(!read == !seen);
            if (read) std::rethrow_exception(read);
        }
    }
};

/// Puts a number into an index and makes its checksum right again.
template <class T>
std::string resealed(const OneShard& s, std::size_t at_in_index, T value) {
    auto bytes = s.good;
    const auto base = s.data_at();
    std::memcpy(bytes.data() + base + at_in_index, &value, sizeof value);
    const auto size = OneShard::number<std::uint64_t>(s.good, base + 16);
    const auto sum = xxh3(std::as_bytes(std::span(bytes).subspan(
        base + detail::PackIndex::sealed_from, size - detail::PackIndex::sealed_from)));
    std::memcpy(bytes.data() + base + detail::PackIndex::checksum_at, &sum, sizeof sum);
    return bytes;
}

}  // namespace

TEST_CASE("a shard that was cut short is refused, wherever it was cut") {
    const OneShard s;
    std::mt19937 random(1);
    for (int i = 0; i < 60; ++i) {
        const auto length = i < 10 ? static_cast<std::size_t>(i) : random() % s.good.size();
        INFO(length);
        s.write(s.good.substr(0, length));
        REQUIRE_THROWS_AS(s.read_all(), DataError);
    }
    s.write(s.good + "more");
    REQUIRE_THROWS_AS(s.read_all(), DataError);
    s.write(s.good);
    REQUIRE_NOTHROW(s.read_all());
}

TEST_CASE("a flipped bit is noticed where it matters, in states of either type") {
    for (const auto states : {PackedStates::Keep, PackedStates::Fp8E4M3}) {
        const OneShard s(states);
        const detail::PackedShard shard(s.path);
        std::vector<std::size_t> places{s.data_at() + 1, s.data_at() + 9, s.data_at() + 30,
                                        s.data_at() + shard.index().bytes() / 2};
        for (std::size_t i = 0; i < 4; ++i)
            for (const auto& f : shard.index().at(i).features) {
                places.push_back(s.data_at() + f.data.offset + f.data.bytes / 2);
                if (f.scales.bytes) places.push_back(s.data_at() + f.scales.offset);
            }
        for (const auto at : places) {
            INFO(at);
            auto bytes = s.good;
            bytes[at] = static_cast<char>(bytes[at] ^ 4);
            s.write(bytes);
            REQUIRE_THROWS_AS(s.read_all(), DataError);
        }
    }
}

TEST_CASE("an index whose numbers are hostile is refused, though its checksum is right") {
    const OneShard s(PackedStates::Fp8E4M3);
    const auto base = s.data_at();
    const auto index_bytes = OneShard::number<std::uint64_t>(s.good, base + 16);
    // Each 8-byte and each 4-byte place of the index becomes a number that is far too large, one
    // that is negative, zero, and its neighbour; what is still accepted must be readable.
    std::size_t refused = 0;
    for (std::size_t at = 0; at + 8 <= index_bytes; at += 4)
        for (const auto change : {0, 1, 2, 3}) {
            if (at >= detail::PackIndex::checksum_at && at < detail::PackIndex::sealed_from)
                continue;
            const auto old = OneShard::number<std::uint64_t>(s.good, base + at);
            const std::uint64_t value = change == 0   ? ~std::uint64_t{0}
                                        : change == 1 ? std::uint64_t{1} << 62
                                        : change == 2 ? 0
                                                      : old + 64;
            const auto bytes = resealed(s, at, value);
            try {
                const detail::PackIndex index(std::as_bytes(std::span(bytes)).subspan(base),
                                              "hostile");
                for (std::size_t i = 0; i < index.size(); ++i)
                    for (const auto& f : index.at(i).features) {
                        REQUIRE(f.data.offset + f.data.bytes <= bytes.size() - base);
                        REQUIRE(f.scales.offset + f.scales.bytes <= bytes.size() - base);
                    }
            } catch (const DataError&) {
                ++refused;
            } catch (const ContractError&) {
                FAIL("not the caller's fault");
            }
        }
    REQUIRE(refused > index_bytes / 2);
    std::mt19937 random(2);
    for (int i = 0; i < 2000; ++i) {
        const auto at = random() % (index_bytes - 1);
        const auto bytes = resealed(s, at, static_cast<std::uint8_t>(random()));
        try {
            const detail::PackIndex index(std::as_bytes(std::span(bytes)).subspan(base), "hostile");
            for (std::size_t n = 0; n < index.size(); ++n) (void)index.at(n);
        } catch (const DataError&) {
        }
    }
}

TEST_CASE("what is no shard is refused with words that say so") {
    const OneShard s;
    s.write("this is no shard, though it has the name of one and is long enough for a header");
    REQUIRE_THROWS_WITH(s.read_all(), Catch::Matchers::Contains("not a shard"));
    s.write(std::string(4096, '\0'));
    REQUIRE_THROWS_AS(s.read_all(), DataError);
}

TEST_CASE("what a killed writer left of a tombstone hides nothing and is written over") {
    const OneShard s;
    const auto erase = [&](std::size_t i) {
        Store<PackedShards> store({.root = s.dir.path()});
        store.backend().erase(
            {s.manifest.refs[i].sample_id, 0, s.manifest.refs[i].feature_store_uri});
        return store.health().resident_objects;
    };
    REQUIRE(erase(0) == 3);
    std::ofstream(s.dir.path() / detail::Tombstones::file_name, std::ios::app) << "half";
    REQUIRE(erase(1) == 2);
    REQUIRE(erase(1) == 2);  // again: nothing changes
    REQUIRE(std::filesystem::file_size(s.dir.path() / detail::Tombstones::file_name) == 32);
    Store<PackedShards> store({.root = s.dir.path()});
    require_packed(store, s.manifest.refs[2], s.source.samples[2]);
    REQUIRE_THROWS_AS(store.acquire(s.manifest.refs[1]), StaleReferenceError);
}

TEST_CASE("packing that is killed leaves whole shards, and the next call goes on") {
    test::Scratch dir;
    PackSource source(40, 32);
    const PackOptions options{.shard_bytes = 20'000, .durable = false};
    const auto clean = pack(source.store, source.manifest, dir.path() / "clean", options);
    REQUIRE(clean.shards > 3);
    const auto place = dir.path() / "killed";
    std::size_t reused = 0;
    for (const std::size_t victim : {std::size_t{1}, std::size_t{12}, std::size_t{33}}) {
        const auto child = ::fork();
        if (child == 0) {
            try {
                pack(source.store, source.manifest, place, options, [&](const PackProgress& p) {
                    if (p.done >= victim && p.bytes > 0) ::raise(SIGKILL);
                });
            } catch (...) {
            }
            ::_exit(1);
        }
        int status = 0;
        ::waitpid(child, &status, 0);
        REQUIRE(WIFSIGNALED(status));
        for (const auto& name : detail::ShardSet::names_in(place))
            REQUIRE(read_text_file(place / name) == read_text_file(dir.path() / "clean" / name));
    }
    const auto report = pack(source.store, source.manifest, place, options);
    reused = report.reused;
    REQUIRE(reused > 0);
    REQUIRE(reused < report.shards);
    REQUIRE(report.rows == clean.rows);
    REQUIRE(report.bytes == clean.bytes);
    REQUIRE(detail::ShardSet::names_in(place) == detail::ShardSet::names_in(dir.path() / "clean"));
    REQUIRE_FALSE(std::filesystem::exists(place / ".eyas-packing"));
    Store<LocalFiles> store({.root = place});
    for (std::size_t i = 0; i < 40; ++i)
        require_packed(store, report.manifest.refs[i], source.samples[i]);
}

TEST_CASE("a shard that cannot be read hides its own samples and nothing else") {
    const OneShard s;
    const auto& refs = s.manifest.refs;
    const auto bad = s.dir.path() / "shard-00001.safetensors";
    SECTION("it is no shard") { write_text_file(bad, "not a shard, by far"); }
    SECTION("it is cut short") { write_text_file(bad, s.good.substr(0, s.good.size() / 2)); }
    SECTION("it is no file") { std::filesystem::create_directories(bad / "kept"); }
    SECTION("nobody can tell what it is") { std::filesystem::create_symlink(bad, bad); }
    const auto check = [&](auto& store, std::size_t i) {
        const auto fresh = store.put({.sample_id = refs[i].sample_id, .run_id = "put"},
                                     s.source.samples[i].tensors);
        require_packed(store, fresh, s.source.samples[i]);
        REQUIRE_THROWS_AS(store.acquire(refs[i]), StaleReferenceError);
        require_packed(store, refs[3], s.source.samples[3]);
        REQUIRE(store.backend().usage().objects == store.health().resident_objects);
        auto lost = refs[3];
        lost.feature_store_uri = "file://" + bad.string();
        try {
            store.acquire(lost);
            FAIL("an unreadable shard was opened");
        } catch (const StaleReferenceError&) {
            FAIL("it is called gone");
        } catch (const Error&) {
        }
    };
    Store<PackedShards> own({.root = s.dir.path()});
    check(own, 0);
    REQUIRE(own.health().resident_objects == 4);
    Store<SharedDirectory> shared(
        {.root = s.dir.path().parent_path(), .store_id = s.dir.path().filename().string()});
    check(shared, 1);
    REQUIRE(shared.health().resident_objects == 3);  // those put beside it are another store's
    REQUIRE(shared.collect(std::chrono::seconds(-1)) == 3);
}
