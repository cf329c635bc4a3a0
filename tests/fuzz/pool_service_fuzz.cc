// A pool's service with a client who says anything: several requests, one after the other, of one
// session. The store stays whole: what was put before is there, and leases end with the session.
#include "eyas/store/memory.hpp"
#include "eyas/store/pool_service.hpp"
#include "fuzz.hpp"

namespace {
using namespace eyas;

/// One request of a feed: its head, and as many parts as its first byte says.
struct Said final : Request {
    explicit Said(fuzz::Feed& feed) {
        for (auto n = feed.byte() % 8; n > 0; --n) {
            bytes.push_back(feed.message());
            sizes.push_back(bytes.back().size());
        }
        text = feed.message();
    }
    std::span<const std::byte> head() const override { return text; }
    const std::vector<std::uint64_t>& parts() const override { return sizes; }
    void take(std::span<const std::span<std::byte>> into) override {
        fuzz::require(!taken && into.size() == bytes.size());
        taken = true;
        for (std::size_t i = 0; i < into.size(); ++i) {
            fuzz::require(into[i].size() == bytes[i].size());
            if (!into[i].empty()) std::memcpy(into[i].data(), bytes[i].data(), into[i].size());
        }
    }
    void reply(std::span<const std::byte> head, std::span<const std::span<const std::byte>> out,
               int) override {
        fuzz::require(!replied);
        replied = true;
        fuzz::touch(head);
        for (const auto& p : out) fuzz::touch(p);
    }
    bool passes_descriptors() const override { return true; }
    const std::string& peer() const override { return name; }
    Limit limit() const override { return Limit::within(std::chrono::seconds(1)); }

    std::span<const std::byte> text;
    std::vector<std::span<const std::byte>> bytes;
    std::vector<std::uint64_t> sizes;
    bool taken = false, replied = false;
    std::string name = "fuzz";
};

struct Pool {
    Store<Memory> store{{}, {.quota_bytes = 1 << 16}};
    PoolService<Store<Memory>> service{store};
};
}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static auto pool = std::make_unique<Pool>();
    static int runs = 0;
    if (++runs % 512 == 0) pool = std::make_unique<Pool>();  // generations are remembered
    fuzz::Feed feed(fuzz::bytes_of(data, size));
    const Tensor kept = Tensor::zeros(DType::U8, {16});
    const NamedTensor feature[] = {{"x", kept}};
    fuzz::refuse_or_read([&] { pool->store.put({.sample_id = "a", .run_id = {}}, feature); });
    {
        const auto session = pool->service.open_session();
        while (!feed.empty()) {
            Said said(feed);
            fuzz::refuse_or_read([&] {
                pool->service.serve(*session, said);
                fuzz::require(said.replied);
            });
        }
    }
    fuzz::require(pool->service.leases() == 0);
    for (const auto& o : pool->store.backend().objects()) pool->store.backend().erase(o.key);
    return 0;
}
