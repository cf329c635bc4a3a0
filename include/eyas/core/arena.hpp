#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "eyas/core/error.hpp"
#include "eyas/core/tensor.hpp"

namespace eyas {

class Arena;

/// An array whose memory an Arena gave; its size varies up to what was given. Copies are other
/// names of the same memory.
template <class T>
class ArenaArray {
    static_assert(std::is_trivially_copyable_v<T> && std::is_trivially_destructible_v<T>);

public:
    T* data() { return data_; }
    const T* data() const { return data_; }
    std::size_t size() const { return size_; }
    std::size_t capacity() const { return given_; }
    bool empty() const { return size_ == 0; }
    T* begin() { return data_; }
    T* end() { return data_ + size_; }
    const T* begin() const { return data_; }
    const T* end() const { return data_ + size_; }
    T& operator[](std::size_t i) { return data_[i]; }
    const T& operator[](std::size_t i) const { return data_[i]; }

    /// Leaves the elements as they are. Throws ContractError past what was given.
    void resize(std::size_t size) {
        if (size > given_)
            throw ContractError(
                std::to_string(size) + " elements, " + std::to_string(given_) + " were reserved",
                "ArenaArray", "Reserve for the largest batch");
        size_ = size;
    }
    void assign(std::size_t size, T value) {
        resize(size);
        std::fill_n(data_, size, value);
    }
    void clear() { size_ = 0; }
    void push_back(const T& value) {
        resize(size_ + 1);
        data_[size_ - 1] = value;
    }

private:
    friend class Arena;
    T* data_ = nullptr;
    std::size_t size_ = 0, given_ = 0;
};

/// What one purpose takes of an arena.
struct ArenaPart {
    std::string name;
    std::uint64_t bytes = 0;
};

/// All memory of a step in one piece; with a device that has memory of its own in two, since some
/// arrays are the host's. Who uses it lays it out with one function of the arena that
/// names every array and its largest size; the same function counts and gives, so a plan made
/// before anything is allocated is what will be. One thread.
class Arena {
public:
    static constexpr std::size_t alignment = 64;

    /// Bytes by part that `lay_out(arena)` would take, in order of first mention. Nothing is
    /// allocated and no array changes.
    template <class F>
    static std::vector<ArenaPart> plan(const F& lay_out) {
        Arena counting;
        counting.counts_ = true;
        lay_out(counting);
        return counting.parts_;
    }

    /// Gives every array of `lay_out(arena)` its memory, their contents are undefined: of
    /// `resource`, or of the host. Throws ResourceError when there is none; the arena holds nothing
    /// then.
    template <class F>
    void build(const F& lay_out, MemoryResource* resource = nullptr) {
        Arena counting;
        counting.counts_ = true;
        counting.split_ = resource != nullptr;
        lay_out(counting);
        memory_ = Tensor();  // before the next is taken
        host_memory_ = Tensor();
        memory_ = Tensor(DType::U8, {static_cast<std::int64_t>(counting.used_)}, resource);
        if (resource)
            host_memory_ = Tensor(DType::U8, {static_cast<std::int64_t>(counting.host_used_)});
        used_ = host_used_ = 0;
        split_ = counting.split_;
        parts_.clear();
        lay_out(*this);
    }

    /// In a layout function: up to `size` elements for `array`, as a share of `part`.
    template <class T>
    void give(ArenaArray<T>& array, std::int64_t size, std::string_view part) {
        give_from(memory_, used_, array, size, part);
    }
    /// The same, of memory that the host reads and writes whatever the device.
    template <class T>
    void give_host(ArenaArray<T>& array, std::int64_t size, std::string_view part) {
        if (split_)
            give_from(host_memory_, host_used_, array, size, part);
        else
            give_from(memory_, used_, array, size, part);
    }

    const std::vector<ArenaPart>& parts() const { return parts_; }

private:
    template <class T>
    void give_from(Tensor& memory, std::size_t& used, ArenaArray<T>& array, std::int64_t size,
                   std::string_view part) {
        const auto count = static_cast<std::size_t>(size);
        const auto bytes = (count * sizeof(T) + alignment - 1) / alignment * alignment;
        const auto it = std::ranges::find(parts_, part, &ArenaPart::name);
        if (it == parts_.end())
            parts_.push_back({std::string(part), bytes});
        else
            it->bytes += bytes;
        const auto at = used;
        used += bytes;
        if (counts_) return;
        array.data_ = reinterpret_cast<T*>(memory.mutable_view().data + at);
        array.given_ = count;
        array.size_ = 0;
    }

    Tensor memory_, host_memory_;
    std::size_t used_ = 0, host_used_ = 0;
    std::vector<ArenaPart> parts_;
    bool counts_ = false, split_ = false;
};

}  // namespace eyas
