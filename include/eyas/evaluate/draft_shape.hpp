#pragma once
#include <algorithm>
#include <charconv>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "eyas/core/error.hpp"

namespace eyas {

/// Which tokens a draft proposes in a round: a tree whose nodes at depth i have widths[i] children,
/// the most probable ones. Static (EAGLE, arXiv 2401.15077): every node is expanded. Dynamic
/// (EAGLE-2, arXiv 2406.16858): at each depth only the `beam` nodes of highest probability, and of
/// all nodes the `total` of highest probability are verified; a node's probability is the product
/// along its path. Whether a node is expanded depends on what lies before it alone, so rejection
/// sampling stays exact (Verification::Rejection).
struct DraftShape {
    std::vector<std::int64_t> widths{1, 1, 1, 1, 1};
    std::int64_t beam = 0;   // 0: static
    std::int64_t total = 0;  // 0: all
    // Nodes whose path the draft gives a smaller probability are proposed, but not expanded: what
    // would follow them is seldom accepted, and costs as much. 0: all are.
    double confidence = 0;

    static DraftShape chain(std::int64_t depth) { return {same(depth, 1), 0, 0}; }
    /// No draft: plain decoding.
    static DraftShape none() { return chain(0); }
    static DraftShape tree(std::vector<std::int64_t> widths) { return {std::move(widths), 0, 0}; }
    static DraftShape dynamic(std::int64_t depth, std::int64_t top_k, std::int64_t total) {
        return {same(depth, top_k), top_k, total};
    }

    std::int64_t depth() const { return std::ssize(widths); }
    bool is_chain() const {
        return std::ranges::all_of(widths, [](auto w) { return w == 1; });
    }

    /// Nodes that a round verifies at most.
    std::int64_t nodes() const {
        std::int64_t all = 0, level = 1;
        for (auto w : widths) {
            level *= w;
            all += level;
            if (beam > 0) level = std::min(level, beam);
        }
        return total > 0 ? std::min(total, all) : all;
    }

    /// Nodes that a round expands at most: rows of the draft.
    std::int64_t expanded() const {
        std::int64_t all = 0, level = 1;
        for (std::size_t i = 0; i + 1 < widths.size(); ++i) {
            level *= widths[i];
            if (beam > 0) level = std::min(level, beam);
            all += level;
        }
        return all;
    }

    /// Throws ContractError for a depth of more than 16; widths that are not positive; more than
    /// 1024 nodes.
    void check() const {
        const auto refuse = [](const std::string& what) {
            throw ContractError(what, "draft shape",
                                "Use chain:DEPTH, tree:W1,W2,... or dynamic:DEPTH,TOP_K,TOTAL with "
                                "a depth of up to 16, and @CONFIDENCE from 0 to 1 or none");
        };
        if (depth() > 16) refuse("a draft of depth " + std::to_string(widths.size()));
        std::int64_t level = 1;
        for (auto w : widths) {
            if (w < 1 || w > 1024) refuse("a width of " + std::to_string(w));
            level *= w;
            if (beam > 0) level = std::min(level, beam * w);
            if (level > 1024) refuse("more than 1024 tokens at one depth");
        }
        if (beam < 0 || total < 0) refuse("a negative number of tokens");
        if (nodes() > 1024) refuse("a draft of " + std::to_string(nodes()) + " tokens");
        if (!(confidence >= 0 && confidence < 1))
            refuse("a confidence of " + std::to_string(confidence));
    }

    std::string text() const { return nodes_text() + (confidence > 0 ? "@" + number() : ""); }

private:
    std::string number() const {
        char digits[32];
        return {digits, std::to_chars(digits, digits + sizeof digits, confidence).ptr};
    }
    std::string nodes_text() const {
        if (widths.empty()) return "none";
        if (beam > 0)
            return "dynamic:" + std::to_string(depth()) + "," + std::to_string(beam) + "," +
                   std::to_string(nodes());
        if (is_chain()) return "chain:" + std::to_string(depth());
        std::string s = "tree:";
        for (auto w : widths) s += (s.back() == ':' ? "" : ",") + std::to_string(w);
        return s;
    }

    /// A depth that check() refuses stays one that it refuses.
    static std::vector<std::int64_t> same(std::int64_t depth, std::int64_t width) {
        if (depth < 0)
            throw ContractError("a draft of depth " + std::to_string(depth), "draft shape",
                                "Use a depth of up to 16");
        return std::vector<std::int64_t>(
            static_cast<std::size_t>(std::min<std::int64_t>(depth, 17)), width);
    }
};

/// chain:5, tree:4,2,1 or dynamic:6,8,32 (depth, top k, total), each with or without a confidence
/// behind it: chain:5@0.4. Throws ContractError.
inline DraftShape parse_draft_shape(std::string_view text) {
    const auto colon = text.find(':'), at = text.find('@');
    const auto kind = text.substr(0, colon);
    std::vector<std::int64_t> numbers;
    double confidence = 0;
    bool good = colon != text.npos && colon < at;
    if (good && at != text.npos) {
        const auto* end = text.data() + text.size();
        const auto read = std::from_chars(text.data() + at + 1, end, confidence);
        good = read.ec == std::errc() && read.ptr == end;
    }
    for (auto rest = good ? text.substr(0, at).substr(colon + 1) : ""; good && !rest.empty();) {
        std::int64_t n = 0;
        const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), n);
        good = error == std::errc() && n > 0 && n <= 1024;
        numbers.push_back(n);
        rest.remove_prefix(static_cast<std::size_t>(end - rest.data()));
        if (!rest.empty()) {
            good = good && rest.front() == ',' && rest.size() > 1;
            rest.remove_prefix(1);
        }
    }
    DraftShape shape;
    if (good && kind == "chain" && numbers.size() == 1)
        shape = DraftShape::chain(numbers[0]);
    else if (good && kind == "tree" && !numbers.empty())
        shape = DraftShape::tree(numbers);
    else if (good && kind == "dynamic" && numbers.size() == 3)
        shape = DraftShape::dynamic(numbers[0], numbers[1], numbers[2]);
    else
        shape.widths.clear();
    if (shape.widths.empty())
        throw ContractError("'" + std::string(text) + "' is no draft shape", "draft shape",
                            "Use chain:DEPTH, tree:W1,W2,... or dynamic:DEPTH,TOP_K,TOTAL, with "
                            "@CONFIDENCE behind it or without");
    shape.confidence = confidence;
    shape.check();
    return shape;
}

}  // namespace eyas
