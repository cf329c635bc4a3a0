#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <fstream>

#include "conformance.hpp"
#include "eyas/ingest/scan.hpp"
#include "eyas/store/local_files.hpp"
#include "eyas/store/shared_directory.hpp"
#include "eyas/store/uri.hpp"
#include "scratch.hpp"

using namespace eyas;
using conformance::prototype;
using conformance::Sample;

namespace {
/// Runs f in a child process; its exit code.
int in_child(const std::function<int()>& f) {
    const auto pid = ::fork();
    if (pid == 0) {
        int code = 99;
        try {
            code = f();
        } catch (...) {
        }
        ::_exit(code);
    }
    int status = 0;
    ::waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

std::filesystem::path only_object(const std::filesystem::path& dir) {
    for (const auto& e : std::filesystem::directory_iterator(dir))
        if (e.path().extension() == ".safetensors" || e.path().extension() == ".ckpt")
            return e.path();
    return {};
}
}  // namespace

TEST_CASE("two processes share one directory") {
    test::Scratch dir;
    const SharedDirectory::Options place{.root = dir.path()};
    Store<SharedDirectory> mine(place);
    const auto r1 = mine.put(prototype("a"), Sample(1).features());
    REQUIRE(in_child([&] {
                Store<SharedDirectory> theirs(place);
                auto lease = theirs.acquire(r1);
                if (!conformance::same_bytes(theirs.view(lease)[0].tensor, Sample(1).ids)) return 1;
                theirs.put(prototype("a"), Sample(2).features());
                return 0;
            }) == 0);
    REQUIRE_THROWS_AS(mine.acquire(r1), StaleReferenceError);
    auto r2 = r1;
    r2.metadata["generation"] = 2;
    conformance::require_content(mine, r2, Sample(2));
    REQUIRE(mine.put(prototype("a"), Sample(3).features()).generation() == 3);
}

TEST_CASE("two producers that put the same sample at once get one generation each") {
    test::Scratch dir;
    const SharedDirectory::Options place{.root = dir.path(), .files = {.durable = false}};
    const auto child = ::fork();
    Store<SharedDirectory> store(place);
    for (int i = 0; i < 40; ++i) store.put(prototype("a"), Sample(child ? 1 : 2).features());
    if (child == 0) ::_exit(0);
    ::waitpid(child, nullptr, 0);
    const auto objects = store.backend().objects();
    REQUIRE(objects.size() == 1);
    REQUIRE(objects[0].key.generation == 80);  // 40 of each, none twice
    SampleRef ref = prototype("a");
    ref.metadata["generation"] = 80;
    auto lease = store.acquire(ref);
    const auto ids = store.view(lease)[0].tensor, hidden = store.view(lease)[1].tensor;
    const bool first = conformance::same_bytes(ids, Sample(1).ids);
    REQUIRE((first || conformance::same_bytes(ids, Sample(2).ids)));
    REQUIRE(conformance::same_bytes(hidden, Sample(first ? 1 : 2).hidden));
}

TEST_CASE("a producer killed before its commit leaves nothing visible, and the rest is swept") {
    test::Scratch dir;
    const SharedDirectory::Options place{.root = dir.path(),
                                         .files = {.sweep_after = std::chrono::seconds(0)}};
    REQUIRE(in_child([&] {
                std::filesystem::create_directories(dir.path() / "eyas" / ".eyas-tmp");
                AtomicFile file(dir.path() / "eyas" / "a.g0.safetensors", true,
                                dir.path() / "eyas" / ".eyas-tmp");
                file.write("half of an object");
                ::raise(SIGKILL);
                return 0;
            }) == -SIGKILL);
    const auto temporaries = [&] {
        return std::distance(std::filesystem::directory_iterator(dir.path() / "eyas" / ".eyas-tmp"),
                             {});
    };
    REQUIRE(temporaries() == 1);
    Store<SharedDirectory> store(place);
    REQUIRE(store.health().resident_objects == 0);
    REQUIRE(only_object(dir.path() / "eyas").empty());
    REQUIRE(temporaries() == 0);
    REQUIRE(store.put(prototype("a"), Sample(1).features()).generation() == 1);
}

TEST_CASE("a sample may be named like a temporary") {
    test::Scratch dir;
    const SharedDirectory::Options place{.root = dir.path(),
                                         .files = {.sweep_after = std::chrono::seconds(0)}};
    const auto ref =
        Store<SharedDirectory>(place).put(prototype("run.tmp-1-2:0"), Sample(1).features());
    Store<SharedDirectory> again(place);
    conformance::require_content(again, ref, Sample(1));
}

TEST_CASE("puts do not list the directory again") {
    test::Scratch dir;
    Store<SharedDirectory> store({.root = dir.path(), .files = {.durable = false}});
    for (int i = 0; i < 200; ++i) store.put(prototype(std::to_string(i)), Sample(i).features());
    REQUIRE(store.backend().listings() == 1);
    REQUIRE(store.health().resident_objects == 200);
    REQUIRE(store.backend().listings() == 1);
}

TEST_CASE("a generation never comes to mean other bytes, also after its process has ended") {
    test::Scratch dir;
    const SharedDirectory::Options place{.root = dir.path()};
    SampleRef consumed;
    {
        Store<SharedDirectory> store(place, {.retain_on_release = false});
        store.put(prototype("b"), Sample(9).features());
        consumed = store.put(prototype("a"), Sample(1).features());
        store.release(store.acquire(consumed));
    }
    Store<SharedDirectory> store(place);
    REQUIRE(store.put(prototype("a"), Sample(2).features()).generation() == 2);
    REQUIRE_THROWS_AS(store.acquire(consumed), StaleReferenceError);
    REQUIRE(store.put(prototype("b"), Sample(3).features()).generation() == 2);
}

TEST_CASE("of two generations that a killed writer left, the older is refused") {
    test::Scratch dir;
    const SharedDirectory::Options place{.root = dir.path()};
    Store<SharedDirectory> store(place);
    const auto one = store.put(prototype("a"), Sample(1).features());
    const auto first = only_object(dir.path() / "eyas");
    const auto copy = dir.path() / "copy";
    std::filesystem::copy_file(first, copy);
    const auto two = store.put(prototype("a"), Sample(2).features());
    std::filesystem::copy_file(copy, first);
    REQUIRE_THROWS_AS(Store<SharedDirectory>(place).acquire(one), StaleReferenceError);
    conformance::require_content(store, two, Sample(2));
    // It is no object, and does not come back when the newer one is consumed.
    Store<SharedDirectory> once(place, {.retain_on_release = false});
    REQUIRE(once.health().resident_objects == 1);
    once.release(once.acquire(two));
    REQUIRE_THROWS_AS(once.acquire(one), StaleReferenceError);
    REQUIRE(once.health().resident_objects == 0);
    REQUIRE(once.put(prototype("a"), Sample(3).features()).generation() == 3);
}

TEST_CASE("another process consumed a sample: its generation is not given again here") {
    test::Scratch dir;
    const SharedDirectory::Options place{.root = dir.path()};
    Store<SharedDirectory> mine(place);
    const auto one = mine.put(prototype("a"), Sample(1).features());
    REQUIRE(in_child([&] {
                Store<SharedDirectory> theirs(place, {.retain_on_release = false});
                theirs.release(theirs.acquire(one));
                const auto two = theirs.put(prototype("a"), Sample(2).features());
                theirs.release(theirs.acquire(two));
                return two.generation() == 2 ? 0 : 1;
            }) == 0);
    REQUIRE(mine.put(prototype("a"), Sample(3).features()).generation() == 3);
}

TEST_CASE("a damaged lock file is an error, and impossible generations are no objects") {
    test::Scratch dir;
    Store<SharedDirectory> store({.root = dir.path()});
    store.put(prototype("a"), Sample(1).features());
    std::ofstream(dir.path() / "eyas" / "x.g9223372036854775807.safetensors") << "x";
    REQUIRE(store.health().resident_objects == 1);
    std::ofstream(dir.path() / "eyas" / ".eyas-lock", std::ios::binary) << std::string(16, '\xff');
    REQUIRE_THROWS_WITH(store.put(prototype("b"), Sample(1).features()),
                        Catch::Contains("counters are impossible"));
}

TEST_CASE("a store that may only be read is read") {
    test::Scratch dir;
    const SharedDirectory::Options place{.root = dir.path()};
    const auto ref = Store<SharedDirectory>(place).put(prototype("a"), Sample(1).features());
    std::filesystem::remove_all(dir.path() / "eyas" / ".eyas-tmp");
    Store<SharedDirectory> reader(place);
    conformance::require_content(reader, ref, Sample(1));
    REQUIRE_FALSE(std::filesystem::exists(dir.path() / "eyas" / ".eyas-tmp"));
}

TEST_CASE("a store that holds samples is not taken over with a token") {
    test::Scratch dir;
    const SharedDirectory::Options place{.root = dir.path()};
    Store<SharedDirectory> open(place);
    const auto ref = open.put(prototype("a"), Sample(1).features());
    REQUIRE_THROWS_AS(Store<SharedDirectory>(place, {.auth_token = "mine"}), AuthenticationError);
    conformance::require_content(open, ref, Sample(1));
}

TEST_CASE("a feature's name may hold a slash") {
    test::Scratch dir;
    Store<SharedDirectory> store({.root = dir.path()});
    const Sample a(1), b(2);
    const std::vector<NamedTensor> features{{"x/input_ids", a.ids}, {"input_ids", b.ids}};
    const auto lease = store.acquire(store.put(prototype("a"), features));
    REQUIRE(conformance::same_bytes(store.view(lease)[0].tensor, a.ids));
    REQUIRE(conformance::same_bytes(store.view(lease)[1].tensor, b.ids));
}

TEST_CASE("a restarted store adopts what is on disk") {
    test::Scratch dir;
    SampleRef ref;
    {
        Store<SharedDirectory> store({.root = dir.path()});
        ref = store.put(prototype("a"), Sample(1).features());
    }
    Store<SharedDirectory> again({.root = dir.path()});
    conformance::require_content(again, ref, Sample(1));
    REQUIRE(again.put(prototype("a"), Sample(2).features()).generation() == 2);
}

TEST_CASE("a wrong or missing token is refused when opening and at each call") {
    test::Scratch dir;
    const SharedDirectory::Options place{.root = dir.path()};
    Store<SharedDirectory> store(place, {.auth_token = "right"});
    const auto ref = store.put(prototype("a"), Sample(1).features());
    REQUIRE_THROWS_AS(Store<SharedDirectory>(place), AuthenticationError);
    REQUIRE_THROWS_AS(Store<SharedDirectory>(place, {.auth_token = "wrong"}), AuthenticationError);
    REQUIRE(read_text_file(dir.path() / "eyas" / ".eyas-credential").find("right") ==
            std::string::npos);
    conformance::require_content(store, ref, Sample(1));
    write_text_file(dir.path() / "eyas" / ".eyas-credential",
                    detail::make_credential_record("changed"));
    REQUIRE_THROWS_AS(store.acquire(ref), AuthenticationError);
    REQUIRE_THROWS_AS(store.put(prototype("b"), Sample(1).features()), AuthenticationError);
}

TEST_CASE("damaged objects are refused, and no lease stays") {
    for (auto payload : {PayloadFormat::Safetensors, PayloadFormat::Ckpt}) {
        test::Scratch dir;
        const SharedDirectory::Options place{.root = dir.path(), .files = {.payload = payload}};
        Store<SharedDirectory> store(place);
        const auto ref = store.put(prototype("a"), Sample(1).features());
        const auto path = only_object(dir.path() / "eyas");
        const auto whole = read_text_file(path);
        for (std::size_t cut = 0; cut < whole.size(); cut += 13) {
            std::ofstream(path, std::ios::binary) << whole.substr(0, cut);
            REQUIRE_THROWS_AS(store.acquire(ref), DataError);
        }
        const auto at =
            whole.find(std::string(reinterpret_cast<const char*>(Sample(1).ids.view().data), 72));
        REQUIRE(at != std::string::npos);
        auto flipped = whole;
        flipped[at + 5] = static_cast<char>(flipped[at + 5] ^ 16);
        std::ofstream(path, std::ios::binary) << flipped;
        REQUIRE_THROWS_AS(conformance::require_content(store, ref, Sample(1)), DataError);
        REQUIRE(store.health().active_leases == 0);
    }
}

TEST_CASE("a full disk refuses the put and leaves nothing") {
    test::Scratch dir;
    REQUIRE(in_child([&] {
                Store<SharedDirectory> store({.root = dir.path()});
                ::signal(SIGXFSZ, SIG_IGN);
                const rlimit limit{200, 200};
                ::setrlimit(RLIMIT_FSIZE, &limit);
                try {
                    store.put(prototype("a"), Sample(1).features());
                } catch (const ResourceError&) {
                    return 3;
                }
                return 1;
            }) == 3);
    for (const auto& e : std::filesystem::recursive_directory_iterator(dir.path() / "eyas"))
        REQUIRE((e.path().filename() == ".eyas-lock" || e.path().filename() == ".eyas-tmp"));
}

TEST_CASE("refs of another store or outside the root are refused") {
    test::Scratch dir;
    Store<SharedDirectory> store({.root = dir.path(), .store_id = "one"});
    auto ref = store.put(prototype("a"), Sample(1).features());
    ref.feature_store_uri = "disagg://two/a";
    REQUIRE_THROWS_WITH(store.acquire(ref), Catch::Contains("another store"));
    Store<LocalFiles> files({.root = dir.fresh()});
    SampleRef outside = prototype("x");
    outside.feature_store_uri = "file:///etc/hostname";
    REQUIRE_THROWS_WITH(files.acquire(outside), Catch::Contains("outside"));
    REQUIRE_THROWS_AS(
        Store<SharedDirectory>({.root = dir.path(), .store_id = std::string(300, 'x')}),
        ContractError);
}

TEST_CASE("store URIs") {
    const auto uri = parse_store_uri("disagg:/data/x?store_id=run1&payload=ckpt");
    REQUIRE(uri.path == "/data/x");
    const auto o = shared_directory_options(uri);
    REQUIRE(o.store_id == "run1");
    REQUIRE(o.files.payload == PayloadFormat::Ckpt);
    for (const char* bad :
         {"", "disagg", ":x", "disagg:", "disagg:?a=b", "disagg:/x?a", "disagg:/x?a=1&a=2"})
        REQUIRE_THROWS_AS(parse_store_uri(bad), ContractError);
    REQUIRE_THROWS_AS(shared_directory_options(parse_store_uri("disagg:/x?speed=fast")),
                      ContractError);
}
