#pragma once
#include "command.hpp"
#include "eyas/capture/conversations.hpp"
#include "eyas/format/torch_file.hpp"
#include "eyas/ingest/scan.hpp"
#include "eyas/sample/feature_layout.hpp"
#include "eyas/sample/vocab_counts.hpp"
#include "eyas/sample/vocab_map_build.hpp"
#include "eyas/sample/vocab_map_io.hpp"

namespace eyas::cli {

class VocabMapCommand : public Command {
public:
    explicit VocabMapCommand(CLI::App& parent)
        : Command(parent, "vocab-map",
                  "choose the draft vocabulary: the most frequent supervised tokens") {
        auto* from = app_.add_option_group("source", "where the supervised tokens are counted");
        from->add_option("--features", features_, "directory of feature files");
        from->add_option("--conversations", conversations_, "JSON lines, as for capture");
        from->require_option(1);
        app_.add_option("--vocab-size", vocab_size_, "V, tokens of the target")
            ->required()
            ->check(CLI::PositiveNumber);
        app_.add_option("--draft-vocab-size", draft_vocab_size_, "W, tokens of the draft")
            ->required()
            ->check(CLI::PositiveNumber);
        app_.add_option("--max-len", max_len_, "count the first so many tokens of each sample")
            ->capture_default_str();
        app_.add_option("--out", out_, "FILE.safetensors or FILE.pt with d2t and t2d")->required();
    }

private:
    OrderedJson run() override {
        TokenCounts counts;
        const auto samples =
            features_.empty() ? count_conversations(counts) : count_features(counts);
        const auto map = build_vocab_map(counts, vocab_size_, draft_vocab_size_);
        save_vocab_map(out_, map);
        const double covered = coverage(map, counts);
        std::printf(
            "%s: %lld of %lld tokens; %zu of them were seen, %.2f %% of the %lld supervised tokens "
            "are covered\n",
            out_.c_str(), static_cast<long long>(draft_vocab_size_),
            static_cast<long long>(vocab_size_), counts.entries().size(), 100 * covered,
            static_cast<long long>(counts.total()));
        return {{"out", out_},
                {"samples", samples},
                {"supervised_tokens", counts.total()},
                {"distinct_tokens", counts.entries().size()},
                {"coverage", covered}};
    }

    std::size_t count_conversations(TokenCounts& counts) const {
        const auto all = read_conversations(conversations_, {});
        for (const auto& c : all)
            counts.add(c.input_ids, c.loss_mask, conversations_, vocab_size_, max_len_);
        return all.size();
    }

    std::size_t count_features(TokenCounts& counts) const {
        const auto files = feature_files(features_);
        Progress progress("vocab-map", static_cast<std::int64_t>(files.size()));
        for (std::size_t i = 0; i < files.size(); ++i) {
            const TorchFile f(files[i]);
            counts.add(f.at(feature::input_ids).as<std::int64_t>(),
                       f.at(feature::loss_mask).as<std::int64_t>(), files[i].string(), vocab_size_,
                       max_len_);
            progress.show(static_cast<std::int64_t>(i) + 1);
        }
        return files.size();
    }

    std::string features_, conversations_, out_;
    std::int64_t vocab_size_ = 0, draft_vocab_size_ = 0;
    std::size_t max_len_ = 2048;
};

}  // namespace eyas::cli
