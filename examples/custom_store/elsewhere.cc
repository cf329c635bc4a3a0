// A backend whose objects lie elsewhere (here: in a vault that gives no addresses), and are read
// straight into the caller's memory: ReadsElsewhere. It passes the conformance suite too.

#include "conformance_fault.hpp"
#include "eyas/store/memory.hpp"

class Vault {
public:
    static constexpr std::string_view scheme = "vault";
    using Options = eyas::Memory::Options;
    explicit Vault(Options o) : there_(std::move(o)) {}

    /// Views without an address: dtype, shape and checksum are known, the bytes are not here.
    eyas::StoredObject open(const eyas::ObjectKey& key, bool verify) {
        auto there = std::make_shared<eyas::StoredObject>(there_.open(key, verify));
        eyas::StoredObject here;
        for (const auto& t : there->tensors)
            here.tensors.push_back({t.name, {nullptr, t.tensor.dtype, t.tensor.shape}});
        here.checksums = there->checksums;
        here.keep = there;
        return here;
    }
    /// Tensors by place, each into memory of its size; one entry each, null where it went well.
    std::vector<std::exception_ptr> read_each(std::span<const eyas::ObjectRead> reads) {
        std::vector<std::exception_ptr> status(reads.size());
        for (std::size_t i = 0; i < reads.size(); ++i) try {
                const auto& from =
                    *static_cast<const eyas::StoredObject*>(reads[i].object->keep.get());
                for (std::size_t k = 0; k < reads[i].places.size(); ++k) {
                    const auto bytes = from.tensors.at(reads[i].places[k]).tensor.bytes();
                    std::ranges::copy(bytes, reads[i].into[k].begin());
                }
            } catch (...) {
                status[i] = std::current_exception();
            }
        return status;
    }

    std::int64_t publish(const std::string& sample, std::span<const eyas::NamedTensor> tensors,
                         const eyas::Checksums& checksums) {
        return there_.publish(sample, tensors, checksums);
    }
    void erase(const eyas::ObjectKey& key) { there_.erase(key); }
    std::vector<eyas::ObjectInfo> objects() { return there_.objects(); }
    eyas::Usage usage() { return there_.usage(); }
    std::string uri(const eyas::ObjectKey& key) { return there_.uri(key); }
    std::optional<std::string> credential_record() { return there_.credential_record(); }
    void set_credential_record(const std::string& r) { there_.set_credential_record(r); }

private:
    eyas::Memory there_;
};
static_assert(eyas::ReadsElsewhere<Vault>);

TEST_CASE("Vault is a store, also when it fails") {
    eyas::conformance::check_store_faults<Vault>([] { return Vault::Options{}; });
}
