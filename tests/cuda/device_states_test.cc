// States of batches that a store reads straight into memory of a GPU, on the host's CUDA, whose
// memory is closed to all but its own calls: a host that looks at them ends with a fault.
#include <atomic>
#include <catch2/catch.hpp>

#include "eyas/device/cuda.cuh"
#include "eyas/device/cuda_room.cuh"
#include "eyas/store/device_reads.hpp"
#include "eyas/transport/posix.hpp"
#include "fake_cuda.hpp"
#include "tests/cuda/own_memory.hpp"

using namespace eyas;
using Catch::Matchers::Contains;
using Told = std::vector<std::string>;

namespace {

/// Objects that lie elsewhere, behind a transport that says it can write to a device: bytes for its
/// memory go through the room, as a GPU's network card would bring them.
class Far {
public:
    static constexpr std::string_view scheme = "far";
    using Options = Memory::Options;
    explicit Far(Options o) : memory_(std::move(o)) {}

    std::int64_t publish(const std::string& sample, std::span<const NamedTensor> tensors,
                         const Checksums& checksums) {
        return memory_.publish(sample, tensors, checksums);
    }
    StoredObject open(const ObjectKey& key, bool verify) const {
        const auto there = std::make_shared<StoredObject>(memory_.open(key, verify));
        StoredObject here = *there;
        here.file = {};
        here.keep = there;
        if (!near)
            for (auto& t : here.tensors) t.tensor.data = nullptr;
        return here;
    }
    std::vector<std::exception_ptr> read_each(std::span<const ObjectRead> reads) {
        for (const auto& r : reads) {
            const auto& there = *static_cast<const StoredObject*>(r.object->keep.get());
            for (std::size_t i = 0; i < r.places.size(); ++i) {
                const auto from = there.tensors[r.places[i]].tensor.bytes();
                if (const auto to = r.into[i]; is_of_device(to)) {
                    room_->copy_in(from.data(), to.data(), to.size());
                    into_device += to.size();
                } else {
                    std::ranges::copy(from, to.begin());
                }
            }
        }
        return std::vector<std::exception_ptr>(reads.size());
    }
    void erase(const ObjectKey& key) { memory_.erase(key); }
    std::vector<ObjectInfo> objects() const { return memory_.objects(); }
    Usage usage() const { return memory_.usage(); }
    std::string uri(const ObjectKey& key) const { return memory_.uri(key); }
    std::optional<std::string> credential_record() const { return memory_.credential_record(); }
    void set_credential_record(const std::string& r) { memory_.set_credential_record(r); }

    struct Region {
        std::shared_ptr<int> registered;
    };
    Region register_region(std::span<std::byte> memory, DeviceRoom& room) {
        region_ = memory;
        room_ = &room;
        return {regions};
    }

    bool near = false;  // as objects of a pool on this machine are mapped
    std::uint64_t into_device = 0;
    std::shared_ptr<int> regions = std::make_shared<int>();

private:
    bool is_of_device(std::span<const std::byte> to) const {
        return room_ && to.data() >= region_.data() &&
               to.data() + to.size() <= region_.data() + region_.size();
    }

    Memory memory_;
    std::span<std::byte> region_;
    DeviceRoom* room_ = nullptr;
};
static_assert(ReadsElsewhere<Far> && RegistersMemory<Far, DeviceRoom>);

std::string why_not_into(Far&, std::string_view kind) {
    return kind == "cuda" ? "" : "it is no GPU";
}

/// Samples of a directory of feature files, in a store.
Manifest put_all(const std::filesystem::path& features, Store<Far>& store) {
    Store<LocalFiles> files(local_files_options(parse_store_uri("file:" + features.string())));
    auto manifest = scan_features(features);
    for (auto& ref : manifest.refs) {
        const auto lease = files.acquire(ref);
        SampleRef prototype;
        prototype.sample_id = ref.sample_id;
        prototype.run_id = ref.run_id;
        ref = store.put(std::move(prototype), files.view(lease));
    }
    return manifest;
}

template <class P>
std::vector<float> trained(Store<Far>& store, const Manifest& manifest, PipelineOptions o) {
    test::TinyDraft<P, Cuda> draft;
    Pipeline(store, manifest, *draft.model, o).run();
    std::vector<float> all;
    for (const auto& p : draft.model->parameters()) {
        Tensor wide(DType::F32, p.value.shape);
        convert_into(on_host(draft.model->device(), p.value), wide.mutable_view());
        const auto values = std::as_const(wide).template as<float>();
        all.insert(all.end(), values.begin(), values.end());
    }
    return all;
}

void check_fake() {
    CHECK(fake_cuda::failures() == Told());
    CHECK(fake_cuda::alive() == Told());
}
}  // namespace

TEMPLATE_TEST_CASE("states that are read into GPU memory train the same bits", "", F32, Bf16) {
    const test::RunDirectory work("device-states");
    test::write_features(work.path() / "features", 9, DType::F32);
    Store<Far> store({}, {.verify_checksums = false});
    const auto manifest = put_all(work.path() / "features", store);
    // Batches of two samples, cut and padded; rows of several; read ahead by several threads.
    auto o = test::own_memory::options("", 0);
    SECTION("a sample a row") {}
    SECTION("packed") {
        o.loader.batch_size = 1;
        o.loader.pack_tokens = 40;
        o.loader.max_len = 11;
    }
    SECTION("by several threads") {
        o.loader.prefetch = 3;
        o.loader.threads = 3;
    }
    SECTION("objects that are mapped here") { store.backend().near = true; }
    const auto by_host = trained<TestType>(store, manifest, o);
    CHECK(store.backend().into_device == 0);
    {
        CudaRoom room(0);
        o.loader.states = &room;
        CHECK((trained<TestType>(store, manifest, o) == by_host));
        CHECK(store.backend().regions.use_count() == 1);  // undone
    }
    // Of mapped ones the host copies, and of those that are cut.
    CHECK((store.backend().into_device > 0) == !store.backend().near);
    check_fake();
}

TEST_CASE("a GPU that fails under a loader is an error of its batch") {
    const test::RunDirectory work("device-states-fault");
    test::write_features(work.path() / "features", 4, DType::F32);
    Store<Far> store({}, {.verify_checksums = false});
    const auto manifest = put_all(work.path() / "features", store);
    for (const char* call : {"cudaMalloc", "cudaMemcpyAsync", "cudaMemsetAsync"}) {
        CudaRoom room(0);
        LoaderOptions o{.batch_size = 4, .states = &room};
        fake_cuda::reset();
        fake_cuda::fail(call, 1, cudaErrorMemoryAllocation);
        CHECK_THROWS_WITH(
            [&] {
                Loader<Store<Far>> loader(store, manifest, o);
                loader.next();
            }(),
            Contains(call) && Contains("cudaErrorMemoryAllocation"));
        CHECK(fake_cuda::failed());
        fake_cuda::reset();
    }
    check_fake();
}

TEST_CASE("whether states may be read into a device is known before, with the reason") {
    Store<Far> unverified({}, {.verify_checksums = false}), verified({}, {});
    CHECK(why_not_into(unverified, "cuda") == "");
    CHECK(why_not_into(unverified, "abacus") == "it is no GPU");
    CHECK_THAT(why_not_into(verified, "cuda"), Contains("checksums are verified"));
    const test::RunDirectory work("device-states-why");
    test::write_features(work.path() / "features", 4, DType::F32);
    Store<LocalFiles> files(
        local_files_options(parse_store_uri("file:" + (work.path() / "features").string())));
    CHECK_THAT(why_not_into(files, "cuda"), Contains("in the host's memory"));
    static_assert(!RegistersMemory<RemotePool<Transport<Posix>>, DeviceRoom>);
    // Against that: errors before anything is read.
    CudaRoom room(0);
    const auto manifest = scan_features(work.path() / "features");
    CHECK_THROWS_WITH(Loader<Store<LocalFiles>>(files, manifest, {.states = &room}),
                      Contains("does not read into memory of a device"));
    CHECK_THROWS_WITH(Loader<Store<Far>>(verified, put_all(work.path() / "features", verified),
                                         {.states = &room}),
                      Contains("the host cannot verify checksums in memory of a device"));
    auto unknown = put_all(work.path() / "features", unverified);
    for (auto& ref : unknown.refs) ref.feature_specs.clear();
    CHECK_THROWS_WITH(Loader<Store<Far>>(unverified, unknown, {.states = &room}),
                      Contains("Say how large it is"));
}
