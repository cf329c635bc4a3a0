#pragma once
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "eyas/capture/generated_sequence.hpp"
#include "eyas/capture/prompts.hpp"
#include "eyas/core/json.hpp"
#include "eyas/core/line_file.hpp"

namespace eyas {

/// What every answer of a rollout keeps to.
struct AnswerLimits {
    std::int64_t vocab_size = 0;      // ids are below it
    std::int64_t max_new_tokens = 0;  // behind the prompt
};

namespace detail {

inline std::string answer_line(const GeneratedSequence& s, const std::string& id) {
    const OrderedJson j{{"index", s.index},
                        {"id", id},
                        {"input_ids", s.input_ids},
                        {"loss_mask", s.conversation().loss_mask},
                        {"prompt_tokens", s.prompt_tokens},
                        {"finish", name_of(s.finish)}};
    return j.dump() + "\n";
}

/// Throws DataError for what is no answer to one of the prompts within the limits.
inline GeneratedSequence parse_answer(std::string_view line, std::span<const Prompt> prompts,
                                      const AnswerLimits& limits, const std::string& where) {
    constexpr const char* remedy = "Remove the file to generate again";
    const auto json = parse_json(line, where);
    const auto c = parse_conversation(line, {}, where);
    GeneratedSequence s;
    s.index = required<std::int64_t>(json, "index", where);
    if (s.index < 0 || s.index >= std::ssize(prompts))
        throw DataError("there is no prompt " + std::to_string(s.index), where, remedy);
    const auto& prompt = prompts[static_cast<std::size_t>(s.index)].input_ids;
    s.input_ids = c.input_ids;
    s.prompt_tokens = required<std::int64_t>(json, "prompt_tokens", where);
    if (s.prompt_tokens != std::ssize(prompt) || s.prompt_tokens >= s.tokens() ||
        !std::equal(prompt.begin(), prompt.end(), s.input_ids.begin()) ||
        c.loss_mask != s.conversation().loss_mask)
        throw DataError("not an answer to prompt " + std::to_string(s.index), where, remedy);
    if (s.generated_tokens() > limits.max_new_tokens)
        throw DataError(std::to_string(s.generated_tokens()) +
                            " new tokens, more than any answer of this rollout has",
                        where, remedy);
    for (auto id : s.input_ids)
        if (id >= limits.vocab_size)
            throw DataError("token " + std::to_string(id) + " is none of this rollout's model",
                            where, remedy);
    const auto finish = required<std::string>(json, "finish", where);
    if (finish != name_of(Finish::stop) && finish != name_of(Finish::length))
        throw DataError("finish is '" + finish + "'", where, remedy);
    s.finish = finish == name_of(Finish::stop) ? Finish::stop : Finish::length;
    return s;
}

}  // namespace detail

/// The answers of a rollout on disk. While it runs they are lines of OUT.part, appended in the
/// order in which they end; once all are there, OUT appears with all of them in the order of the
/// prompts, and OUT.part goes. OUT.rollout.json says of which rollout they are. So a rollout that
/// is started again goes on where it was, and one that is done finds everything. One process writes
/// (a lock on OUT.part), one thread.
class RolloutLog {
public:
    /// Whether an answer that is there still counts (its features may be lost).
    using Keep = std::function<bool(const GeneratedSequence&)>;

    /// Changes nothing that is there. Throws ContractError where OUT or OUT.part are another
    /// rollout's (`identity` differs) or none's, ResourceError when another rollout writes them.
    /// `prompts` is borrowed.
    RolloutLog(std::filesystem::path out, OrderedJson identity, std::span<const Prompt> prompts,
               AnswerLimits limits)
        : out_(std::move(out)),
          identity_(std::move(identity)),
          prompts_(prompts),
          limits_(limits),
          part_(with_suffix(".part"), true, "another rollout is writing this",
                "Let it end, or name another --out"),
          places_(prompts.size()) {
        check_owner();
    }

    /// First of all: takes what is there. `keep` is asked for every answer until one to its prompt
    /// counts, a torn last line is cut off. Throws DataError for a line that is no answer.
    void open(const Keep& keep) {
        const auto owner = owner_file();
        if (!std::filesystem::exists(owner)) write_text_file(owner, identity_.dump(2) + "\n");
        take(out_, false, keep);
        part_.cut_to(take(part_.path(), true, keep));
    }

    bool has(std::int64_t index) const {
        return places_[static_cast<std::size_t>(index)].has_value();
    }
    std::int64_t answers() const {
        return std::ranges::count_if(places_, [](const auto& p) { return p.has_value(); });
    }
    std::int64_t missing() const { return std::ssize(places_) - answers(); }

    /// Adds an answer; it is on disk on return. Throws ResourceError when the disk refuses.
    void append(const GeneratedSequence& s) {
        const auto i = static_cast<std::size_t>(s.index);
        const auto line = detail::answer_line(s, prompts_[i].id);
        const auto begin = part_.end();
        part_.append(line);
        places_[i] = {true, begin, line.size()};
    }

    /// Puts OUT in its place. Throws ContractError where answers are missing.
    void complete() {
        if (missing() > 0)
            throw ContractError(std::to_string(missing()) + " answers are missing", out_.string(),
                                "Run the rollout again");
        if (part_.end() == 0) return;  // OUT holds everything
        {
            const auto bytes = [](const std::filesystem::path& p) {
                return std::filesystem::exists(p) ? MappedFile(p) : MappedFile();
            };
            const MappedFile old = bytes(out_), part = bytes(part_.path());
            AtomicFile file(out_);
            for (const auto& p : places_)
                file.write((p->in_part ? part : old).bytes().subspan(p->begin, p->size));
            file.commit();
        }
        part_.cut_to(0);
    }

private:
    /// Leaves no empty file behind.
    struct PartFile : LineFile {
        using LineFile::LineFile;
        PartFile(PartFile&&) = delete;
        ~PartFile() {
            std::error_code ignored;
            if (std::filesystem::file_size(path(), ignored) == 0) ::unlink(path().c_str());
        }
    };

    struct Place {
        bool in_part = false;  // else in OUT
        std::size_t begin = 0, size = 0;
    };

    std::filesystem::path with_suffix(const char* suffix) const {
        auto p = out_;
        p += suffix;
        return p;
    }

    std::filesystem::path owner_file() const { return with_suffix(".rollout.json"); }

    void check_owner() const {
        const auto file = owner_file(), part = part_.path();
        if (std::filesystem::exists(file)) {
            if (read_json_file(file) != Json(identity_))
                throw ContractError(
                    "holds answers of another model or precision, to other prompts or with other "
                    "options",
                    out_.string(),
                    "Remove it with " + file.filename().string() +
                        " and its .part, or name another --out");
            return;
        }
        if (std::filesystem::exists(out_))
            throw ContractError("is there already, and of no rollout", out_.string(),
                                "Remove it with " + part.filename().string() +
                                    ", where there is one, or name another --out");
        if (detail::size_of_regular(part_.descriptor(), part) > 0)
            throw ContractError("holds answers, and " + file.filename().string() +
                                    ", which says of which rollout, is missing",
                                part.string(), "Remove it, or name another --out");
    }

    /// Bytes of whole lines.
    std::size_t take(const std::filesystem::path& file, bool in_part, const Keep& keep) {
        if (!std::filesystem::exists(file)) return 0;
        const MappedFile mapped(file);
        const std::string_view text(reinterpret_cast<const char*>(mapped.bytes().data()),
                                    mapped.bytes().size());
        std::size_t begin = 0;
        std::int64_t number = 1;
        for (std::size_t newline; (newline = text.find('\n', begin)) != text.npos;
             begin = newline + 1) {
            const auto s =
                detail::parse_answer(text.substr(begin, newline - begin), prompts_, limits_,
                                     file.string() + " line " + std::to_string(number++));
            auto& place = places_[static_cast<std::size_t>(s.index)];
            if (!place && keep(s)) place = Place{in_part, begin, newline + 1 - begin};
        }
        return begin;
    }

    std::filesystem::path out_;
    OrderedJson identity_;
    std::span<const Prompt> prompts_;
    AnswerLimits limits_;
    PartFile part_;
    std::vector<std::optional<Place>> places_;  // by prompt
};

}  // namespace eyas
