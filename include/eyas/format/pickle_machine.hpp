#pragma once
#include <cstdint>
#include <cstring>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "eyas/core/error.hpp"
#include "eyas/format/pickle_tensor.hpp"
#include "eyas/format/pickle_value.hpp"

namespace eyas::detail {

/// The state of a pickle's stack machine - bytes, values, stack, marks, memo - with every access
/// checked and every growth bounded. PickleReader adds the opcodes.
class PickleMachine {
protected:
    PickleMachine(std::span<const std::byte> bytes, std::string where)
        : bytes_(bytes), where_(std::move(where)) {}

    using Ref = std::size_t;  // index into nodes_
    struct Global {
        std::string name;  // "module name"
    };
    struct Sequence {
        std::vector<Ref> items;
        bool tuple = false;
    };
    struct Dict {
        std::vector<Ref> flat;  // key, value, key, value, ...
    };
    using Node = std::variant<PickleValue, Global, StorageRef, Sequence, Dict>;

    static constexpr std::size_t deepest = 64, most_values = 4'000'000;
    static constexpr std::size_t most_copied = std::size_t{1} << 28;  // bytes

    [[noreturn]] void fail(
        const std::string& what,
        const std::string& remedy =
            "Write the file again with torch.save of plain tensors, dicts and numbers") const {
        throw DataError(what + " (pickle offset " + std::to_string(at_) + ")", where_, remedy);
    }

    std::span<const std::byte> take(std::size_t n) {
        if (bytes_.size() - at_ < n) fail("truncated pickle");
        at_ += n;
        return bytes_.subspan(at_ - n, n);
    }
    template <class T>
    T number() {
        T v;
        std::memcpy(&v, take(sizeof v).data(), sizeof v);
        return v;
    }
    std::string text(std::size_t n) {
        const auto b = take(n);
        return {reinterpret_cast<const char*>(b.data()), n};
    }
    std::string line() {
        std::string s;
        for (char c; (c = static_cast<char>(take(1)[0])) != '\n';) s += c;
        return s;
    }

    void push(Node n) {
        if (nodes_.size() >= most_values)
            fail("more than " + std::to_string(most_values) + " values");
        charge(sizeof(Node));
        nodes_.push_back(std::move(n));
        stack_.push_back(nodes_.size() - 1);
    }
    void push_value(PickleValue v) { push(Node(std::move(v))); }
    Ref pop() {
        if (stack_.size() <= floor()) fail("the pickle pops an empty stack");
        const auto r = stack_.back();
        stack_.pop_back();
        return r;
    }
    Ref& top() {
        if (stack_.size() <= floor()) fail("the pickle reads an empty stack");
        return stack_.back();
    }
    std::size_t floor() const { return marks_.empty() ? 0 : marks_.back(); }
    /// Everything above the last mark.
    std::vector<Ref> pop_mark() {
        if (marks_.empty()) fail("the pickle has no mark here");
        std::vector<Ref> items(stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back()),
                               stack_.end());
        stack_.resize(marks_.back());
        marks_.pop_back();
        return items;
    }
    template <class T>
    T& node(Ref r, const char* want) {
        if (auto* n = std::get_if<T>(&nodes_[r])) return *n;
        fail(std::string("expected ") + want);
    }

    void memoize(std::uint32_t key) { memo_[key] = top(); }
    void recall(std::uint32_t key) {
        const auto it = memo_.find(key);
        if (it == memo_.end())
            fail("the pickle recalls " + std::to_string(key) + ", which it never stored");
        stack_.push_back(it->second);
    }
    std::int64_t integer_of(Ref r) {
        if (const auto* i = node<PickleValue>(r, "an integer").as<std::int64_t>()) return *i;
        fail("expected an integer");
    }
    std::string string_of(Ref r) {
        if (const auto* s = node<PickleValue>(r, "a string").as<std::string>()) return *s;
        fail("expected a string");
    }
    std::vector<std::int64_t> integers_of(Ref r) {
        std::vector<std::int64_t> v;
        for (auto i : node<Sequence>(r, "a tuple of integers").items) v.push_back(integer_of(i));
        return v;
    }
    /// What the pickle stands for: the one value left on the stack.
    PickleValue finish() {
        if (!marks_.empty() || stack_.size() != 1)
            fail("the pickle ends with a stack of " + std::to_string(stack_.size()));
        return tree(stack_[0], 0);
    }

    /// The value graph as a tree; shared parts are copied, so their number and depth are bounded.
    PickleValue tree(Ref r, std::size_t depth) {
        if (depth > deepest || ++visited_ > most_values)
            fail("values are nested or shared too deeply");
        const auto& n = nodes_[r];
        if (const auto* v = std::get_if<PickleValue>(&n)) {
            if (const auto* text = v->as<std::string>()) charge(text->size());
            if (const auto* bytes = v->as<PickleBytes>()) charge(bytes->data.size());
            return *v;
        }
        if (const auto* s = std::get_if<Sequence>(&n)) {
            PickleList items;
            charge(s->items.size() * sizeof(PickleValue));
            items.reserve(s->items.size());
            for (auto i : s->items) items.push_back(tree(i, depth + 1));
            if (s->tuple) return PickleTuple{std::move(items)};
            return items;
        }
        if (const auto* d = std::get_if<Dict>(&n)) {
            PickleDict out;
            charge(d->flat.size() * sizeof(PickleValue));
            out.items.reserve(d->flat.size() / 2);
            for (std::size_t i = 0; i < d->flat.size(); i += 2)
                out.items.emplace_back(tree(d->flat[i], depth + 1),
                                       tree(d->flat[i + 1], depth + 1));
            return out;
        }
        fail("a bare storage or class where a value belongs");
    }

    /// Counts bytes that values take: a short pickle can name one long value very often.
    void charge(std::size_t bytes) {
        if (bytes > most_copied - copied_) fail("its values take too much memory");
        copied_ += bytes;
    }

    std::span<const std::byte> bytes_;
    std::string where_;
    std::size_t at_ = 0, visited_ = 0, copied_ = 0;
    std::vector<Node> nodes_;
    std::vector<Ref> stack_;
    std::vector<std::size_t> marks_;
    std::map<std::uint32_t, Ref> memo_;
};

}  // namespace eyas::detail
