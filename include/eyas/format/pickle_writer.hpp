#pragma once
#include <bit>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "eyas/format/pickle_value.hpp"

namespace eyas {

/// Writes the data.pkl of a torch file (protocol 2) for plain values and tensors, and lists the
/// storages in the order of their keys "0", "1", ... Every tensor gets a storage of its own.
class PickleWriter {
public:
    /// The pickle of `root`. Throws ContractError when a container holds something that has no
    /// place in one (no such case today) or a tensor's dtype is unknown to torch.
    std::string write(const PickleValue& root) {
        out_ = "\x80\x02";
        value(root);
        out_ += '.';
        return std::move(out_);
    }
    const std::vector<TensorView>& storages() const { return storages_; }

private:
    template <class T>
    void raw(T v) {
        out_.append(reinterpret_cast<const char*>(&v), sizeof v);
    }
    void global(std::string_view module, std::string_view name) {
        out_ += 'c';
        out_.append(module).append("\n").append(name).append("\n");
    }
    void text(std::string_view s) {
        out_ += 'X';
        raw(static_cast<std::uint32_t>(s.size()));
        out_ += s;
    }
    void integer(std::int64_t v) {
        if (v >= 0 && v < 256) {
            out_ += 'K';
            raw(static_cast<std::uint8_t>(v));
        } else if (v >= std::numeric_limits<std::int32_t>::min() &&
                   v <= std::numeric_limits<std::int32_t>::max()) {
            out_ += 'J';
            raw(static_cast<std::int32_t>(v));
        } else {
            out_ += "\x8a\x08";
            raw(v);
        }
    }
    void integers(std::span<const std::int64_t> all) {
        out_ += '(';
        for (auto v : all) integer(v);
        out_ += 't';
    }

    void value(const PickleValue& v) {
        std::visit([this](const auto& x) { item(x); }, v.value);
    }
    void item(std::monostate) { out_ += 'N'; }
    void item(bool b) { out_ += b ? '\x88' : '\x89'; }
    void item(std::int64_t v) { integer(v); }
    void item(double v) {
        out_ += 'G';
        const auto bits = std::bit_cast<std::uint64_t>(v);
        for (int shift = 56; shift >= 0; shift -= 8)
            out_ += static_cast<char>(bits >> shift & 0xFF);
    }
    void item(const std::string& s) { text(s); }
    void item(const PickleBytes& b) {  // _codecs.encode(text, 'latin1'), as protocol 2 spells bytes
        std::string utf8;
        for (char c : b.data) {
            const auto u = static_cast<unsigned char>(c);
            if (u < 0x80)
                utf8 += c;
            else
                utf8 += {static_cast<char>(0xC0 | u >> 6), static_cast<char>(0x80 | (u & 0x3F))};
        }
        global("_codecs", "encode");
        text(utf8);
        text("latin1");
        out_ += "\x86R";
    }
    void item(const PickleList& l) {
        out_ += "](";
        for (const auto& v : l) value(v);
        out_ += 'e';
    }
    void item(const PickleTuple& t) {
        out_ += '(';
        for (const auto& v : t.items) value(v);
        out_ += 't';
    }
    void item(const PickleDict& d) {
        out_ += "}(";
        for (const auto& [k, v] : d.items) value(k), value(v);
        out_ += 'u';
    }
    void item(DType d) { global("torch", name_of(d)); }

    /// _rebuild_tensor_v2 over a typed storage, or _rebuild_tensor_v3 over an untyped one for the
    /// dtypes that never had a storage class.
    void item(const TensorView& t) {
        const auto& r = detail::row(t.dtype);
        const bool typed = !r.storage.empty();
        global("torch._utils", typed ? "_rebuild_tensor_v2" : "_rebuild_tensor_v3");
        out_ += "((";
        text("storage");
        if (typed)
            global("torch", r.storage);
        else
            global("torch.storage", "UntypedStorage");
        text(std::to_string(storages_.size()));
        text("cpu");
        integer(typed ? t.elements() : static_cast<std::int64_t>(t.size_bytes()));
        out_ += "tQ";
        integer(0);
        integers(t.shape.dims());
        std::vector<std::int64_t> strides(t.shape.rank());
        std::int64_t stride = 1;
        for (auto i = strides.size(); i-- > 0;) {
            strides[i] = stride;
            stride *= std::max<std::int64_t>(t.shape[i], 1);
        }
        integers(strides);
        out_ += '\x89';
        global("collections", "OrderedDict");
        out_ += ")R";
        if (!typed) item(t.dtype);
        out_ += "tR";
        storages_.push_back(t);
    }

    std::string out_;
    std::vector<TensorView> storages_;
};

}  // namespace eyas
