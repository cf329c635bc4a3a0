#pragma once
#include <atomic>
#include <chrono>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "eyas/core/tensor.hpp"
#include "eyas/sample/sample_ref.hpp"
#include "eyas/store/concept.hpp"

namespace eyas::test {

/// A store that counts what is done to it, can be slow and can fail: what a loader or an ingest
/// sees, without a backend. Thread-safe.
class FakeStore {
public:
    class Lease {
    public:
        Lease(FakeStore* store, std::string id) : store_(store), id_(std::move(id)) {
            ++store_->leased;
        }
        Lease(Lease&& o) noexcept
            : store_(std::exchange(o.store_, nullptr)), id_(std::move(o.id_)) {}
        Lease& operator=(Lease&& o) noexcept {
            std::swap(store_, o.store_);
            std::swap(id_, o.id_);
            return *this;
        }
        ~Lease() {
            if (!store_) return;
            --store_->leased;
            ++store_->aborted;
        }
        const std::string& id() const { return id_; }

    private:
        friend class FakeStore;
        FakeStore* store_;
        std::string id_;
    };

    SampleRef put(SampleRef prototype, std::span<const NamedTensor> tensors,
                  const GivenChecksums& = {}) {
        if (fail_put == prototype.sample_id)
            throw ResourceError("no space left", prototype.sample_id, "Free some");
        Features features;
        for (const auto& t : tensors) {
            prototype.feature_specs.push_back(spec_of(t));
            prototype.feature_keys.emplace_back(t.name, prototype.sample_id + "/" + t.name);
            features.emplace_back(t.name, Tensor::copy_of(t.tensor));
        }
        {
            const std::lock_guard lock(mutex_);
            samples_[prototype.sample_id] = std::move(features);
        }
        prototype.feature_store_uri = "fake://" + prototype.sample_id;
        prototype.metadata["generation"] = 1;
        return prototype;
    }

    Lease acquire(const SampleRef& ref) {
        const std::lock_guard lock(mutex_);
        if (!samples_.contains(ref.sample_id) || consumed.contains(ref.sample_id))
            throw StaleReferenceError("sample is gone", "store", "Ingest it again");
        acquired.push_back(ref.sample_id);
        return {this, ref.sample_id};
    }

    struct ReadRequest {
        const Lease* lease;
        std::span<const NamedBuffer> buffers;
    };
    std::vector<std::exception_ptr> read_each(std::span<const ReadRequest> requests) {
        std::vector<std::exception_ptr> status(requests.size());
        for (std::size_t i = 0; i < requests.size(); ++i) {
            try {
                read_into(*requests[i].lease, requests[i].buffers);
            } catch (...) {
                status[i] = std::current_exception();
            }
        }
        return status;
    }
    void read_into(const Lease& lease, std::span<const NamedBuffer> buffers) {
        if (delay.count() > 0) std::this_thread::sleep_for(delay);
        if (fail_read == lease.id()) throw DataError("checksum mismatch", "tensor x", "Rewrite it");
        ++reads;
        for (const auto& b : buffers)
            for (const auto& [name, tensor] : stored(lease.id())) {
                if (name != b.name) continue;
                if (!(tensor.shape() == b.buffer.shape) || tensor.dtype() != b.buffer.dtype)
                    throw DataError("stored " + tensor.shape().text(), name, "Ask for that");
                std::memcpy(b.buffer.data, tensor.view().data, tensor.view().size_bytes());
            }
    }

    std::vector<NamedTensor> view(const Lease& lease) {
        std::vector<NamedTensor> out;
        for (const auto& [name, tensor] : stored(lease.id())) out.push_back({name, tensor});
        return out;
    }

    bool consume(const SampleRef& ref) {
        const std::lock_guard lock(mutex_);
        if (fail_consume == ref.sample_id) throw TransportError("gone", "store", "Wait");
        released.push_back(ref.sample_id);
        if (consume_once) consumed.insert(ref.sample_id);
        return consume_once;
    }

    /// As a store with a transport has it.
    std::shared_ptr<int> register_region(std::span<std::byte> memory) {
        regions.push_back(memory);
        ++registered;
        return {new int(0), [this](int* p) {
                    --registered;
                    delete p;
                }};
    }

    bool consume_once = false;
    std::vector<std::span<std::byte>> regions;
    std::atomic<int> registered = 0;
    std::string fail_read, fail_put, fail_consume;
    std::chrono::milliseconds delay{0};
    std::atomic<int> leased = 0, aborted = 0, reads = 0;
    std::vector<std::string> acquired, released;  // released: by consume()
    std::set<std::string> consumed;

private:
    using Features = std::vector<std::pair<std::string, Tensor>>;

    const Features& stored(const std::string& id) {
        const std::lock_guard lock(mutex_);
        return samples_.at(id);
    }

    std::mutex mutex_;
    std::map<std::string, Features> samples_;
};

/// One synthetic EAGLE3 sample; every value tells sample, feature and place.
struct FakeSample {
    std::vector<Tensor> owned;
    std::vector<NamedTensor> tensors;

    FakeSample(std::int64_t rows, std::int64_t width, std::int64_t seed,
               DType dtype = DType::BF16) {
        const auto add = [&](std::string_view name, DType d, const Shape& shape,
                             std::int64_t base) {
            Tensor t(d, shape);
            for (std::int64_t i = 0; i < t.elements(); ++i) {
                const auto at = static_cast<std::size_t>(i);
                const auto v = static_cast<float>(base + i % 97);
                if (d == DType::I64)
                    t.as<std::int64_t>()[at] = name == "loss_mask" ? 1 : base + i;
                else if (d == DType::F32)
                    t.as<float>()[at] = v;
                else
                    t.as<BFloat16>()[at] = BFloat16(v);
            }
            owned.push_back(std::move(t));
            tensors.push_back({std::string(name), owned.back()});
        };
        owned.reserve(4);
        add("input_ids", DType::I64, Shape{rows}, 100 * seed);
        add("loss_mask", DType::I64, Shape{rows}, 0);
        add("hidden_state", dtype, Shape{1, rows, width}, seed);
        add("aux_hidden_state", dtype, Shape{1, rows, 3 * width}, 2 * seed);
    }
};

}  // namespace eyas::test
