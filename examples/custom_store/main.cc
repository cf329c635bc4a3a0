// A backend of one's own: objects in a map. It passes the published conformance suite.
#include <map>
#include <mutex>

#include "conformance.hpp"

class MapStore {
public:
    static constexpr std::string_view scheme = "map";
    struct Options {};
    explicit MapStore(Options) {}

    std::int64_t publish(const std::string& sample, std::span<const eyas::NamedTensor> tensors,
                         const eyas::Checksums& checksums) {
        auto o = std::make_shared<Object>();
        for (const auto& t : tensors) {
            o->owned.push_back(eyas::Tensor::copy_of(t.tensor));
            o->view.tensors.push_back({t.name, o->owned.back()});
            o->bytes += t.tensor.size_bytes();
        }
        o->view.checksums = checksums;
        const std::lock_guard lock(mutex_);
        objects_[sample] = {++newest_[sample], o};
        return newest_[sample];
    }
    eyas::StoredObject open(const eyas::ObjectKey& key, bool) {
        const std::lock_guard lock(mutex_);
        const auto it = objects_.find(key.sample);
        if (it == objects_.end() || it->second.first != key.generation)
            throw eyas::StaleReferenceError("no such generation", key.sample, "Put it again");
        auto view = it->second.second->view;
        view.keep = it->second.second;
        return view;
    }
    void erase(const eyas::ObjectKey& key) {
        const std::lock_guard lock(mutex_);
        const auto it = objects_.find(key.sample);
        if (it != objects_.end() && it->second.first == key.generation) objects_.erase(it);
    }
    std::vector<eyas::ObjectInfo> objects() {
        const std::lock_guard lock(mutex_);
        std::vector<eyas::ObjectInfo> all;
        for (const auto& [sample, o] : objects_)
            all.push_back({{sample, o.first},
                           o.second->bytes,
                           std::chrono::duration<double>(Clock::now() - o.second->since).count()});
        return all;
    }
    eyas::Usage usage() {
        eyas::Usage u;
        for (const auto& o : objects()) ++u.objects, u.bytes += o.bytes;
        return u;
    }
    std::string uri(const eyas::ObjectKey& key) { return "map://" + key.sample; }
    std::optional<std::string> credential_record() { return {}; }
    void set_credential_record(const std::string&) {}

private:
    using Clock = std::chrono::steady_clock;
    struct Object {
        std::vector<eyas::Tensor> owned;
        eyas::StoredObject view;
        std::uint64_t bytes = 0;
        Clock::time_point since = Clock::now();
    };
    std::mutex mutex_;
    std::map<std::string, std::pair<std::int64_t, std::shared_ptr<Object>>> objects_;
    std::map<std::string, std::int64_t> newest_;
};
static_assert(eyas::StoreBackend<MapStore>);

TEST_CASE("MapStore is a store") {
    eyas::conformance::check_store<MapStore>([] { return MapStore::Options{}; });
}
