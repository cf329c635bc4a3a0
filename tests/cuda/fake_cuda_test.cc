// The device Cuda on a CUDA runtime of the host (tests/cuda/fake): every op beside Cpu's, uploads,
// several GPUs, none.
#include "fake_cuda.hpp"

#include <catch2/catch.hpp>
#include <numeric>

#include "eyas/device/cuda.cuh"
#include "eyas/ops/block/all.hpp"
#include "op_parity.hpp"

using namespace eyas;
using Told = std::vector<std::string>;

namespace {
/// Bytes that differ from place to place.
std::vector<std::byte> pattern(std::size_t n, unsigned seed = 1) {
    std::vector<std::byte> v(n);
    for (std::size_t i = 0; i < n; ++i)
        v[i] = static_cast<std::byte>((i * 2654435761u + seed) >> 13);
    return v;
}

/// Each piece of 1000 bytes, 3 in the ring: less than one, exactly, more than the ring.
void upload_in_pieces() {
    const Cuda cuda;
    detail::CudaContext& context = *detail::CudaContext::of(0);
    detail::CudaUploads uploads(context.memory(), context.stream(), 1000, 3);
    for (const std::size_t bytes : {1u, 999u, 1000u, 1001u, 3000u, 3001u, 7500u}) {
        Tensor on_gpu(DType::U8, {static_cast<std::int64_t>(bytes)}, cuda.memory());
        auto* to = on_gpu.mutable_view().data;
        const auto want = pattern(bytes);
        auto from = want;
        cuda.zero(to, bytes);  // comes before
        uploads.upload(from.data(), to, bytes);
        std::ranges::fill(from, std::byte{0});  // it has been read
        std::vector<std::byte> got(bytes);
        cuda.download(to, got.data(), bytes);
        CHECK(got == want);
        uploads.upload(want.data(), to, bytes);
        cuda.zero(to, bytes);  // comes after
        cuda.download(to, got.data(), bytes);
        CHECK(got == std::vector<std::byte>(bytes));
    }
}
}  // namespace

TEMPLATE_TEST_CASE("Cuda gives what the host's ops give", "", float, BFloat16) {
    for (const bool eager : {false, true})
        for (const bool products : {false, true}) {
            fake_cuda::eager(eager), fake_cuda::no_algorithms(!products);
            golden::Report report;
            test::compare_ops<TestType>(Cuda(), report);
            CHECK(report.failed() == 0);
            CHECK(report.passed() == 16);
            CHECK(fake_cuda::failures() == Told());
        }
    CHECK(fake_cuda::alive() == Told());
    fake_cuda::eager(false), fake_cuda::no_algorithms(false);
}

TEST_CASE("products that are rounded to bfloat16 once") {
    const Cpu cpu;
    const std::int64_t m = 7, n = 5, k = 11;
    test::Source s;
    const auto a = s.of<BFloat16>(m * k), b = s.of<BFloat16>(k * n);
    std::vector<float> want(static_cast<std::size_t>(m * n));
    cpu.matmul(Matmul<BFloat16, float>{Op::None, Op::None, m, n, k, a.data(), k, b.data(), n,
                                       want.data(), n});
    for (const bool none : {false, true}) {
        fake_cuda::no_algorithms(none);
        const Cuda cuda;
        test::Values<BFloat16> x(cuda, a), y(cuda, b), z(cuda, test::empty<BFloat16>(m * n));
        cuda.matmul(Matmul<BFloat16, BFloat16>{Op::None, Op::None, m, n, k, x.data(), k, y.data(),
                                               n, z.data(), n});
        const auto got = z.host(cuda);
        for (std::size_t i = 0; i < got.size(); ++i)
            CHECK(static_cast<float>(got[i]) == static_cast<float>(BFloat16(want[i])));
    }
    fake_cuda::no_algorithms(false);
    CHECK(fake_cuda::failures() == Told());
}

TEST_CASE("uploads through the ring take their turn, and leave the host its array") {
    for (const bool eager : {false, true}) {
        fake_cuda::eager(eager);
        upload_in_pieces();
    }
    fake_cuda::eager(false);
    CHECK(fake_cuda::failures() == Told());
    CHECK(fake_cuda::alive() == Told());
}

TEST_CASE("which way an upload takes") {
    const std::size_t bytes = detail::CudaUploads::least_bytes + 5;
    fake_cuda::reset();
    {
        const Cuda cuda;
        Tensor on_gpu(DType::U8, {static_cast<std::int64_t>(bytes)}, cuda.memory());
        auto* to = on_gpu.mutable_view().data;
        const auto large = pattern(bytes, 2);
        std::vector<std::byte> got(bytes);
        cuda.upload(large.data(), to, 100);
        CHECK(fake_cuda::calls("cudaHostAlloc") == 0);
        cuda.upload(large.data(), to, bytes);  // makes the ring
        CHECK(fake_cuda::calls("cudaHostAlloc") == 8);
        cuda.upload(large.data(), to, bytes);
        CHECK(fake_cuda::calls("cudaHostAlloc") == 8);
        cuda.download(to, got.data(), bytes);
        CHECK(got == large);

        void* p = nullptr;
        REQUIRE(cudaHostAlloc(&p, bytes, 0) == cudaSuccess);
        std::copy(large.rbegin(), large.rend(), static_cast<std::byte*>(p));
        cuda.upload(p, to, bytes);
        std::fill_n(static_cast<std::byte*>(p), bytes, std::byte{});  // it waited
        cuda.download(to, got.data(), bytes);
        CHECK(std::equal(got.begin(), got.end(), large.rbegin()));
        CHECK(cudaFreeHost(p) == cudaSuccess);
        CHECK(cuda.peak_bytes() > bytes);
    }
    CHECK(fake_cuda::failures() == Told());
    CHECK(fake_cuda::alive() == Told());
}

TEST_CASE("GPUs in turn") {
    fake_cuda::devices(2);
    {
        const Cuda first(0);
        const auto a = zeros_on(first, DType::F32, {5});
        const Cuda second(1);  // while the first is the current one
        const auto b = zeros_on(second, DType::F32, {5});
        for (int i = 0; i < 3; ++i) {
            first.for_each(5, detail::ProbeIndex{});
            second.for_each(5, detail::ProbeIndex{});
        }
        CHECK(on_host(first, a.view()).as<float>()[4] == 0.f);
        CHECK(on_host(second, b.view()).as<float>()[4] == 0.f);
        const Cuda again(1);
        CHECK(again.memory() == second.memory());
    }
    fake_cuda::devices(1);
    CHECK(fake_cuda::failures() == Told());
    CHECK(fake_cuda::alive() == Told());
}

TEST_CASE("no such GPU") {
    CHECK_THROWS_AS(Cuda(1), ResourceError);
    CHECK_THROWS_WITH(Cuda(-1), Catch::Contains("no CUDA device -1 (1 found)") &&
                                    Catch::Contains("use the device Cpu"));
    fake_cuda::devices(0);
    CHECK_THROWS_WITH(
        Cuda(), Catch::Contains("no CUDA device 0") && Catch::Contains("nvidia-smi shows a GPU"));
    fake_cuda::devices(1);
    CHECK(fake_cuda::alive() == Told());
}
