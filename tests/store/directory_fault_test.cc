// What directories do when files cannot go, nothing may be written, or two come first.
#include <fcntl.h>
#include <linux/capability.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <fstream>

#include "conformance_process.hpp"
#include "eyas/store/shared_directory.hpp"

using namespace eyas;
using conformance::demand;
using conformance::in_process;
using conformance::prototype;
using conformance::Sample;

namespace {
/// Makes a name in the store a directory that is not empty, which cannot be removed.
void block(const std::filesystem::path& name) {
    std::filesystem::remove(name);
    std::filesystem::create_directories(name / "kept");
}
/// From here on permissions hold for this process, root's too. (Another user's number cannot be
/// taken in a sandbox.)
void give_up_privileges() {
    __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
    const __user_cap_data_struct none[2]{};
    demand(::syscall(SYS_capset, &header, none) == 0, "privileges are given up");
}
std::uint64_t retired(const std::filesystem::path& store) {
    const auto text = read_text_file(store / ".eyas-lock");
    std::uint64_t n = 0;
    std::memcpy(&n, text.data() + 8, sizeof n);
    return n;
}
}  // namespace

TEST_CASE("a superseded object that cannot be removed keeps the newer one, and never comes back") {
    test::Scratch dir;
    const auto files = dir.path() / "eyas";
    const SharedDirectory::Options place{.root = dir.path()};
    Store<SharedDirectory> store(place, {.retain_on_release = false});
    const auto one = store.put(prototype("a"), Sample(1).features());
    block(files / "a.g1.safetensors");
    const auto two = store.put(prototype("a"), Sample(2).features());
    REQUIRE_THROWS_AS(store.acquire(one), StaleReferenceError);
    store.release(store.acquire(two));
    REQUIRE(store.health().pending_removals == 1);
    REQUIRE(std::filesystem::exists(files / "a.g2.safetensors"));  // else g1 would be the newest
    REQUIRE_THROWS_AS(store.acquire(two), StaleReferenceError);
    Store<SharedDirectory> other(place, {.retain_on_release = false});
    REQUIRE_THROWS_AS(other.acquire(one), StaleReferenceError);
    other.release(other.acquire(two));
    REQUIRE(other.health().pending_removals == 1);  // it looked for itself
    std::filesystem::remove(files / "a.g1.safetensors" / "kept");
    store.drain();
    other.drain();
    REQUIRE(store.health().resident_objects == 0);
    REQUIRE_FALSE(std::filesystem::exists(files / "a.g1.safetensors"));
    REQUIRE_THROWS_AS(store.acquire(one), StaleReferenceError);
}

TEST_CASE("an erased generation is noted before its file goes") {
    test::Scratch dir;
    const auto files = dir.path() / "eyas";
    Store<SharedDirectory> store({.root = dir.path()}, {.retain_on_release = false});
    for (int i = 1; i < 5; ++i) store.put(prototype("a"), Sample(i).features());
    REQUIRE(retired(files) == 0);  // a put alone retires nothing: the newer one tells the number
    auto ref = prototype("a");
    ref.metadata["generation"] = 4;
    auto lease = store.acquire(ref);
    block(files / "a.g4.safetensors");
    store.release(std::move(lease));
    REQUIRE(store.health().pending_removals == 1);
    REQUIRE(retired(files) == 4);  // as a process leaves it that is killed between the two
    std::filesystem::remove_all(files / "a.g4.safetensors");
    store.drain();
    REQUIRE(Store<SharedDirectory>({.root = dir.path()})
                .put(prototype("a"), Sample(9).features())
                .generation() == 5);
}

TEST_CASE("of two that open an empty store with tokens at once, one is its owner") {
    for (int round = 0; round < 10; ++round) {
        test::Scratch dir;
        const SharedDirectory::Options place{.root = dir.path(), .files = {.durable = false}};
        const auto open_as = [&](const std::string& token) {
            return [&place, token] {
                Store<SharedDirectory> store(place, {.auth_token = token});
                store.put(prototype(token), Sample(1).features());
                ::usleep(20'000);
                store.put(prototype(token), Sample(2).features());  // it stays the owner
            };
        };
        conformance::Process one(open_as("one")), two(open_as("two"));
        const int first = one.wait(), second = two.wait();
        REQUIRE(((first == 0) != (second == 0)));
        const std::string owner = first == 0 ? "one" : "two";
        Store<SharedDirectory> store(place, {.auth_token = owner});
        REQUIRE(store.health().resident_objects == 1);
    }
}

TEST_CASE("a credential is given to an empty place only, and once") {
    test::Scratch dir;
    SharedDirectory place({.root = dir.path()});
    place.set_credential_record("first");
    place.set_credential_record("second");
    REQUIRE(place.credential_record() == "first");
    SharedDirectory used({.root = dir.path(), .store_id = "used"});
    const Sample a(1);
    used.publish("a", a.features(), {{"input_ids", 1}, {"hidden_state", 2}});
    used.set_credential_record("late");
    REQUIRE_FALSE(used.credential_record());
}

TEST_CASE("a store whose directory may only be read, is opened, read and listed") {
    for (const bool locked_before : {true, false}) {
        test::Scratch dir;
        const SharedDirectory::Options place{.root = dir.path()};
        const auto files = dir.path() / "eyas";
        const auto ref = Store<SharedDirectory>(place).put(prototype("a"), Sample(1).features());
        std::filesystem::remove_all(files / ".eyas-tmp");
        if (!locked_before) std::filesystem::remove(files / ".eyas-lock");
        ::chmod((files / ".eyas-lock").c_str(), 0444);
        ::chmod(files.c_str(), 0555);
        REQUIRE(in_process([&] {
                    give_up_privileges();
                    Store<SharedDirectory> reader(place, {.retain_on_release = false});
                    demand(conformance::has_content(reader, ref, Sample(1)), "content");
                    demand(reader.health().resident_objects == 1, "listed");
                    reader.release(reader.acquire(ref));
                    demand(reader.health().pending_removals == 1, "it cannot be removed");
                    try {
                        reader.put(prototype("b"), Sample(2).features());
                        demand(false, "a put where nothing may be written");
                    } catch (const ResourceError&) {
                    }
                }) == 0);
        ::chmod(files.c_str(), 0755);
        ::chmod((files / ".eyas-lock").c_str(), 0644);
        REQUIRE(Store<SharedDirectory>(place).health().resident_objects == 1);
    }
}

TEST_CASE("a temporary that another process swept too early is a typed error, and nothing is put") {
    test::Scratch dir;
    const SharedDirectory::Options place{.root = dir.path(), .files = {.durable = false}};
    auto sweeping = place;
    sweeping.files.sweep_after = std::chrono::seconds(0);
    conformance::Process sweeper([&] {
        for (;;) SharedDirectory{sweeping};
    });
    Store<SharedDirectory> store(place);
    int refused = 0;
    for (int i = 0; i < 3000 && refused < 5; ++i) try {
            const auto ref = store.put(prototype("a"), Sample(i).features());
            REQUIRE(conformance::has_content(store, ref, Sample(i)));
        } catch (const Error&) {
            ++refused;
        }
    REQUIRE(refused > 0);
    REQUIRE(store.health().resident_objects <= 1);
}

TEST_CASE("names that only look like an object's are left alone, and remove nothing") {
    test::Scratch dir;
    const SharedDirectory::Options place{.root = dir.path(), .files = {.durable = false}};
    const auto ref = Store<SharedDirectory>(place).put(prototype("ab"), Sample(1).features());
    const std::vector<std::string> strays{"%61b.g2.safetensors",  // "ab" as it is never spelled
                                          "a b.g1.ckpt", "ab.g02.safetensors",
                                          std::string(201, 'a') + ".g3.ckpt"};
    for (const auto& name : strays) write_text_file(dir.path() / "eyas" / name, "stray");
    Store<SharedDirectory> store(place);
    REQUIRE(store.health().resident_objects == 1);
    conformance::require_content(store, ref, Sample(1));
    REQUIRE(store.put(prototype("ab"), Sample(2).features()).generation() == 2);
    for (const auto& name : strays) REQUIRE(read_text_file(dir.path() / "eyas" / name) == "stray");
}

TEST_CASE("a file that another program made under the next name is not replaced") {
    test::Scratch dir;
    const auto files = dir.path() / "eyas";
    const SharedDirectory::Options place{.root = dir.path(), .files = {.durable = false}};
    Store<SharedDirectory> store(place);
    const auto foreign = store.put(prototype("foreign"), Sample(1).features());
    struct stat before {};
    const auto unnoticed = [&](const auto& change) {  // within one tick of the directory's time
        REQUIRE(::stat(files.c_str(), &before) == 0);
        change();
        const timespec times[] = {before.st_atim, before.st_mtim};
        REQUIRE(::utimensat(AT_FDCWD, files.c_str(), times, 0) == 0);
    };
    const auto make = [&](const std::string& name) {
        std::filesystem::copy_file(files / "foreign.g1.safetensors", files / name);
        std::filesystem::create_hard_link(files / name, dir.path() / name);
    };
    unnoticed([&] { make("a.g1.safetensors"); });
    const auto put = store.put(prototype("a"), Sample(2).features());
    REQUIRE(put.generation() == 2);
    conformance::require_content(store, put, Sample(2));
    auto first = put;
    first.metadata["generation"] = 1;
    REQUIRE_THROWS_AS(store.acquire(first), StaleReferenceError);  // never other bytes
    REQUIRE(read_text_file(dir.path() / "a.g1.safetensors") ==
            read_text_file(files / "foreign.g1.safetensors"));
    // Also where it is nothing that could be listed.
    unnoticed([&] { std::filesystem::create_symlink("nowhere", files / "b.g1.safetensors"); });
    REQUIRE(store.put(prototype("b"), Sample(3).features()).generation() == 2);
    conformance::require_content(store, foreign, Sample(1));
    REQUIRE(store.health().resident_objects == 3);
}
