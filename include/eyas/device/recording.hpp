#pragma once
#include <algorithm>
#include <concepts>
#include <cstdint>
#include <list>
#include <optional>
#include <utility>

#include "eyas/device/concept.hpp"

namespace eyas {

namespace detail {
struct ProbeWork {
    void operator()() const {}
};
}  // namespace detail

/// A device that can keep work and do it again without the host's part in it.
/// `record(f)` calls f; the work that f gives the device is kept and not done. f may not wait for
/// the device, bring anything to or from the host, or release memory from before. What f throws
/// goes on, and the device is as it was.
/// `replay(r)` queues that work, with the arrays and numbers it was recorded with.
/// `work_version()` is another number once ops would give the device other work than before.
/// `trim_recordings()` gives memory back that the recordings had which are gone.
template <class D>
concept RecordingDevice = Device<D> && requires(const D& d, const typename D::Recording& r) {
    { d.record(detail::ProbeWork{}) } -> std::same_as<typename D::Recording>;
    d.replay(r);
    { d.work_version() } -> std::same_as<std::uint64_t>;
    { d.trim_recordings() }
    noexcept;
};

/// Work of a device that comes again and again. A key holds all that the work depends on besides
/// the contents of the device's arrays. The first time, the work is simply done, which makes what
/// ops keep for its shapes; the second time it is recorded, and replayed from then on. A device
/// that does not record, and any where this is off, does it each time. One thread.
template <Device D, std::equality_comparable Key>
class Replays {
public:
    explicit Replays(bool /*on*/) {}

    /// The work of f(), which must leave nothing on the host that is needed later. Where it does
    /// not come `again`, no recording is made of it or gives way to it. Throws what f and the
    /// device throw.
    template <class F>
    void run(const D&, const Key&, const F& f, bool /*again*/ = true) {
        f();
    }
    /// To be called before arrays that f names are released.
    void forget() {}
};

template <RecordingDevice D, std::equality_comparable Key>
class Replays<D, Key> {
public:
    static constexpr std::size_t most = 16;  // keys; the one used longest ago makes room

    explicit Replays(bool on) : on_(on) {}
    Replays(const Replays&) = delete;
    Replays& operator=(const Replays&) = delete;
    ~Replays() { forget(); }

    template <class F>
    void run(const D& device, const Key& key, const F& f, bool again = true) {
        if (!on_) return f();
        const auto version = device.work_version();
        if (std::exchange(version_, version) != version) forget();
        const auto it = std::ranges::find(entries_, key, &Entry::key);
        if (!again && (it == entries_.end() || !it->recording)) return f();
        if (it == entries_.end()) {
            f();
            if (entries_.size() == most) entries_.pop_front();
            entries_.push_back({key, {}});
            return;
        }
        entries_.splice(entries_.end(), entries_, it);
        auto& recording = entries_.back().recording;
        if (!recording) {
            recording.emplace(device.record(f));
            device_.emplace(device);
        }
        device.replay(*recording);
    }
    void forget() noexcept {
        entries_.clear();
        if (device_) device_->trim_recordings();
        device_.reset();
    }

private:
    struct Entry {
        Key key;
        std::optional<typename D::Recording> recording;
    };
    bool on_;
    std::uint64_t version_ = 0;
    std::list<Entry> entries_;  // the one used last is the last
    std::optional<D> device_;   // where there may be recordings: theirs
};

}  // namespace eyas
