#pragma once
#include <bit>
#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "eyas/format/pickle_machine.hpp"
#include "eyas/format/pickle_tensor.hpp"
#include "eyas/format/pickle_value.hpp"

namespace eyas {

/// Reads the pickle of a torch file without running anything: a stack machine for the opcodes that
/// torch.save emits (protocol 2), with an allow-list of globals that build tensors and plain
/// values. Anything else is a DataError that names the opcode or the global and the offset. Work is
/// bounded by the input: depth of nesting, number of values and bytes of materialised tensors have
/// limits.
class PickleReader : private detail::PickleMachine {
public:
    PickleReader(std::span<const std::byte> bytes, TensorBuilder& tensors, std::string where)
        : PickleMachine(bytes, std::move(where)), tensors_(tensors) {}

    PickleValue read() {
        for (;;) {
            const auto op = static_cast<unsigned char>(take(1)[0]);
            if (op == '.') break;
            step(op);
        }
        return finish();
    }

private:
    void step(unsigned char op) {
        switch (op) {
            case 0x80:
                if (const auto v = number<std::uint8_t>(); v < 2 || v > 5)
                    fail("pickle protocol " + std::to_string(v));
                return;
            case '(':
                marks_.push_back(stack_.size());
                return;
            case '}':
                return push(Dict{});
            case ']':
                return push(Sequence{});
            case ')':
                return push(Sequence{{}, true});
            case 'N':
                return push_value({});
            case 0x88:
                return push_value(true);
            case 0x89:
                return push_value(false);
            case 'K':
                return push_value(std::int64_t{number<std::uint8_t>()});
            case 'M':
                return push_value(std::int64_t{number<std::uint16_t>()});
            case 'J':
                return push_value(std::int64_t{number<std::int32_t>()});
            case 0x8a:
                return push_value(long_integer());
            case 'G':
                return push_value(big_endian_double());
            case 'X':
                return push_value(text(number<std::uint32_t>()));
            case 0x8c:
                return push_value(text(number<std::uint8_t>()));
            case 'U':
                return push_value(PickleBytes{text(number<std::uint8_t>())});
            case 'B':
                return push_value(PickleBytes{text(number<std::uint32_t>())});
            case 'C':
                return push_value(PickleBytes{text(number<std::uint8_t>())});
            case 'q':
                return memoize(number<std::uint8_t>());
            case 'r':
                return memoize(number<std::uint32_t>());
            case 'h':
                return recall(number<std::uint8_t>());
            case 'j':
                return recall(number<std::uint32_t>());
            case 'c':
                return global();
            case 't':
                return push(Sequence{pop_mark(), true});
            case 0x85:
                return tuple(1);
            case 0x86:
                return tuple(2);
            case 0x87:
                return tuple(3);
            case 'a':
                return append();
            case 'e':
                return extend(pop_mark());
            case 's':
                return set_items({});
            case 'u':
                return set_items(pop_mark());
            case 'Q':
                return persistent_id();
            case 'R':
                return reduce();
            case 'b':
                return build();
            default:
                fail("pickle opcode " + std::to_string(op) + " is not one that torch.save emits");
        }
    }

    std::int64_t long_integer() {
        const auto b = take(number<std::uint8_t>());
        if (b.size() > 8) fail("an integer of more than 64 bits");
        std::uint64_t v =
            !b.empty() && static_cast<std::int8_t>(b.back()) < 0 ? ~std::uint64_t{0} : 0;
        if (!b.empty()) std::memcpy(&v, b.data(), b.size());
        return static_cast<std::int64_t>(v);
    }
    double big_endian_double() {
        std::uint64_t v = 0;
        for (auto b : take(8)) v = v << 8 | static_cast<std::uint64_t>(b);
        return std::bit_cast<double>(v);
    }
    void tuple(std::size_t n) {
        std::vector<Ref> items(n);
        while (n-- > 0) items[n] = pop();
        push(Sequence{std::move(items), true});
    }
    void append() {
        const auto item = pop();
        extend({item});
    }
    void extend(const std::vector<Ref>& items) {
        auto& s = node<Sequence>(top(), "a list");
        if (s.tuple) fail("expected a list");
        s.items.insert(s.items.end(), items.begin(), items.end());
    }
    void set_items(std::vector<Ref> items) {
        if (items.empty() && bytes_[at_ - 1] == std::byte{'s'}) {
            const auto value = pop();
            items = {pop(), value};
        }
        if (items.size() % 2) fail("a dict key without a value");
        auto& d = node<Dict>(top(), "a dict");
        d.flat.insert(d.flat.end(), items.begin(), items.end());
    }

    void global() {
        auto module = line();
        const auto name = module + " " + line();
        if (const auto dtype = dtype_of_global(name)) return push_value(*dtype);
        static constexpr std::string_view allowed[] = {"torch._utils _rebuild_tensor_v2",
                                                       "torch._utils _rebuild_tensor_v3",
                                                       "torch._utils _rebuild_parameter",
                                                       "collections OrderedDict",
                                                       "torch Size",
                                                       "torch.storage UntypedStorage",
                                                       "_codecs encode"};
        if (std::ranges::find(allowed, name) == std::end(allowed) && !storage_dtype(name))
            fail("the pickle names '" + name + "', which is not allowed",
                 "Only tensors and plain Python values are read; nothing from the file is run");
        push(Global{name});
    }

    /// ('storage', type, key, location, number of elements or bytes)
    void persistent_id() {
        const auto id = node<Sequence>(pop(), "a storage id").items;
        if (id.size() != 5) fail("a storage id of " + std::to_string(id.size()) + " parts");
        const auto& type = node<Global>(id[1], "a storage type").name;
        const auto dtype = storage_dtype(type);
        const auto key = string_of(id[2]);
        const auto count = integer_of(id[4]);
        if (string_of(id[0]) != "storage" || count < 0 ||
            (!dtype && type != "torch.storage UntypedStorage"))
            fail("bad storage id");
        charge(key.size());
        push(StorageRef{key, dtype, static_cast<std::uint64_t>(count)});
    }

    void reduce() {
        // Nothing is pushed while it is in use; a copy would cost its length at every call.
        const auto& arguments = node<Sequence>(pop(), "a tuple of arguments").items;
        const auto name = node<Global>(pop(), "a callable").name;
        if (name.starts_with("torch._utils _rebuild_tensor"))
            return push_value(rebuild_tensor(arguments, name.ends_with("v3")));
        if (name == "torch._utils _rebuild_parameter" && !arguments.empty())
            return stack_.push_back(arguments[0]);
        if (name == "torch Size" && arguments.size() == 1) return stack_.push_back(arguments[0]);
        if (name == "_codecs encode" && arguments.size() == 2) {
            auto bytes = latin1(string_of(arguments[0]));
            charge(bytes.size());
            return push_value(PickleBytes{std::move(bytes)});
        }
        if (name == "collections OrderedDict") return ordered_dict(arguments);
        fail("'" + name + "' called with " + std::to_string(arguments.size()) + " arguments");
    }

    /// OrderedDict() or OrderedDict([[key, value], ...])
    void ordered_dict(const std::vector<Ref>& arguments) {
        Dict d;
        if (!arguments.empty())
            for (auto pair : node<Sequence>(arguments[0], "a list of pairs").items) {
                const auto& kv = node<Sequence>(pair, "a pair").items;
                if (kv.size() != 2) fail("expected a pair");
                charge(sizeof(Ref) * 2);
                d.flat.insert(d.flat.end(), kv.begin(), kv.end());
            }
        push(std::move(d));
    }

    /// State of an object: only an OrderedDict's attributes (a state dict's _metadata), which hold
    /// no tensors; they are left out.
    void build() {
        pop();
        node<Dict>(top(), "a dict below its attributes");
    }

    PickleValue rebuild_tensor(const std::vector<Ref>& a, bool untyped) {
        if (a.size() < (untyped ? 7u : 6u))
            fail("a tensor with " + std::to_string(a.size()) + " arguments");
        const auto& storage = node<StorageRef>(a[0], "a storage");
        std::optional<DType> dtype = storage.dtype;
        if (untyped)
            if (const auto* v = std::get_if<PickleValue>(&nodes_[a[6]]))
                if (const auto* d = v->as<DType>()) dtype = *d;
        if (!dtype) fail("a tensor without a dtype");
        return tensors_.build(storage, *dtype, integer_of(a[1]), integers_of(a[2]),
                              integers_of(a[3]));
    }

    /// UTF-8 of code points below 256 -> bytes (how protocol 2 spells a bytes object).
    std::string latin1(const std::string& utf8) const {
        std::string out;
        for (std::size_t i = 0; i < utf8.size(); ++i) {
            const auto c = static_cast<unsigned char>(utf8[i]);
            if (c < 0x80)
                out += utf8[i];
            else if ((c == 0xC2 || c == 0xC3) && i + 1 < utf8.size())
                out += static_cast<char>((c & 3) << 6 |
                                         (static_cast<unsigned char>(utf8[++i]) & 0x3F));
            else
                fail("bad bytes literal");
        }
        return out;
    }

    TensorBuilder& tensors_;
};

}  // namespace eyas
