#pragma once
#include <fstream>
#include <set>

#include "command.hpp"
#include "eyas/checkpoint/state.hpp"
#include "eyas/format/hf_config.hpp"
#include "eyas/format/safetensors.hpp"
#include "eyas/format/torch_file.hpp"
#include "eyas/ingest/scan.hpp"
#include "eyas/ledger/ledger.hpp"
#include "eyas/sample/manifest.hpp"
#include "eyas/sample/stream_reader.hpp"
#include "eyas/sample/vocab_map_io.hpp"
#include "inspect_samples.hpp"

namespace eyas::cli {

class InspectCommand : public Command {
public:
    explicit InspectCommand(CLI::App& parent)
        : Command(parent, "inspect",
                  "say what a file or directory of ours or the reference's is, and check it") {
        app_.add_option(
                "path", path_,
                "feature file, vocabulary map, manifest, manifest stream, ledger, checkpoint, "
                "run, store, export or model directory")
            ->required();
        app_.add_flag("--tensors", list_, "list every tensor");
    }

private:
    OrderedJson run() override {
        const std::filesystem::path p = path_;
        if (!std::filesystem::exists(p))
            throw DataError("no such file or directory", path_, "Check the path");
        auto result = std::filesystem::is_directory(p) ? directory(p) : file(p);
        std::printf("%s: %s\n", path_.c_str(), result.at("kind").get<std::string>().c_str());
        for (const auto& [key, value] : result.items())
            if (key != "kind" && key != "tensors")
                std::printf(
                    "  %-18s %s\n", key.c_str(),
                    value.is_string() ? value.get<std::string>().c_str() : value.dump().c_str());
        if (list_ && result.contains("tensors"))
            for (const auto& t : result["tensors"])
                std::printf("  %s\n", t.get<std::string>().c_str());
        result["path"] = path_;
        return result;
    }

    OrderedJson directory(const std::filesystem::path& p) const {
        if (std::filesystem::exists(p / eyas::detail::state_file)) {
            const auto s = read_checkpoint_state(p);
            return with_tensors("checkpoint, complete and its checksums right",
                                SafetensorsFile(p / "model.safetensors").tensors(),
                                {{"step", s.step}, {"epoch", s.epoch}, {"batch", s.batch}});
        }
        if (!checkpoint_directories(p).empty()) {
            const auto latest = latest_checkpoint(p);
            return {{"kind", "run directory"},
                    {"checkpoints", checkpoint_directories(p).size()},
                    {"newest good one", latest.path ? latest.path->string() : "none"},
                    {"problems", latest.report}};
        }
        if (std::filesystem::exists(p / "config.json") &&
            std::filesystem::exists(p / "model.safetensors"))
            return model_directory(p);
        return samples(p);
    }

    OrderedJson model_directory(const std::filesystem::path& p) const {
        const auto c = read_model_config(p / "config.json");
        const SafetensorsFile f(p / "model.safetensors");
        OrderedJson about{{"hidden_size", c.hidden_size},
                          {"vocab_size", c.vocab_size},
                          {"draft_vocab_size", c.draft_vocab_size},
                          {"layers", c.num_hidden_layers}};
        const bool draft = f.contains("d2t");
        if (draft)
            check_vocab_map(load_vocab_map(f.path()), c.vocab_size, c.draft_vocab_size,
                            f.path().string());
        const auto kind = !draft ? "Hugging Face model directory"
                          : f.contains("embed_tokens.weight")
                              ? "exported EAGLE3 draft, hf layout"
                              : "exported EAGLE3 draft, sglang layout";
        return with_tensors(kind, f.tensors(), about);
    }

    /// Feature files or a store: every file is read with its checksums.
    OrderedJson samples(const std::filesystem::path& p) const {
        FoundSamples found;
        std::int64_t good = 0;
        std::uintmax_t bytes = 0;
        OrderedJson bad = OrderedJson::array();
        std::vector<std::filesystem::path> files;
        for (const auto& e : std::filesystem::recursive_directory_iterator(p)) {
            const auto name = e.path().filename().string();
            if (name.ends_with(".safetensors") || name.ends_with(".ckpt") ||
                name.ends_with(".ckpt.gz"))
                files.push_back(e.path());
        }
        if (files.empty())
            throw DataError("neither a checkpoint, a model, a store nor feature files", path_,
                            "Name one of those");
        Progress progress("inspect", static_cast<std::int64_t>(files.size()));
        for (const auto& f : files) {
            try {
                look_into(f, found);
                ++good, bytes += std::filesystem::file_size(f);
            } catch (const Error& e) {
                bad.push_back(e.what());
            }
            progress.show(good + static_cast<std::int64_t>(bad.size()));
        }
        for (const auto& b : bad) std::printf("bad: %s\n", b.get<std::string>().c_str());
        if (!bad.empty())
            throw DataError(std::to_string(bad.size()) + " of " + std::to_string(files.size()) +
                                " files are bad",
                            path_, "See the list above");
        return {{"kind", "samples, all of them good"},
                {"files", good},
                {"samples", found.samples},
                {"tokens", found.tokens},
                {"supervised", found.supervised},
                {"size", bytes_text(static_cast<double>(bytes))}};
    }

    OrderedJson file(const std::filesystem::path& p) const {
        const auto name = p.filename().string();
        if (p.extension() == ".json") return json_file(p);
        if (p.extension() == ".jsonl") return stream_file(p);
        if (p.extension() == ".sqlite") return ledger_file(p);
        const bool safetensors = p.extension() == ".safetensors";
        if (!safetensors && p.extension() != ".pt" && !name.ends_with(".ckpt") &&
            !name.ends_with(".ckpt.gz"))
            throw DataError(
                "not a kind of file that eyas knows", path_,
                "Name a .ckpt, .ckpt.gz, .pt, .safetensors, .json, .jsonl or .sqlite file");
        if (!safetensors) return tensor_file(TorchFile(p), p);
        const SafetensorsFile f(p);
        require_checksums(f);
        return tensor_file(f, p);
    }

    template <class F>
    OrderedJson tensor_file(const F& f, const std::filesystem::path& p) const {
        if (f.contains(eyas::detail::PackedShard::index_name)) {
            FoundSamples found;
            const auto packed = look_into_shard(p, found);
            std::uint64_t encoded = 0;
            for (std::size_t i = 0; i < packed.index().size(); ++i)
                for (const auto& t : packed.index().at(i).features)
                    encoded += t.encoding != eyas::detail::Encoding::Plain;
            return with_tensors("shard of packed samples, all of them good", f.tensors(),
                                {{"samples", found.samples},
                                 {"tokens", found.tokens},
                                 {"supervised", found.supervised},
                                 {"identity", hex64(packed.index().identity())},
                                 {"states in float8", encoded},
                                 {"size", bytes_text(static_cast<double>(f.bytes().size()))}});
        }
        if (f.contains(feature::aux_hidden_state)) {
            FoundSamples found;
            found.add(f.tensors(), p.string());
            const auto states = f.at(feature::hidden_state);
            return with_tensors("EAGLE3 sample, good", f.tensors(),
                                {{"tokens", found.tokens},
                                 {"supervised", found.supervised},
                                 {"hidden_size", states.shape[states.shape.rank() - 1]},
                                 {"dtype", name_of(states.dtype)}});
        }
        if (f.contains("d2t") && f.tensors().size() == 2) {
            const auto map = load_vocab_map(p);
            check_vocab_map(map, map.vocab_size(), map.draft_vocab_size(), path_);
            return with_tensors(
                "vocabulary map, both halves agree", f.tensors(),
                {{"vocab_size", map.vocab_size()}, {"draft_vocab_size", map.draft_vocab_size()}});
        }
        return with_tensors("tensor file", f.tensors(), {});
    }

    OrderedJson json_file(const std::filesystem::path& p) const {
        const auto j = read_json_file(p);
        if (j.is_object() && j.contains("refs")) {
            OrderedJson about{{"kind", "manifest, valid"}};
            about.update(refs_of(read_manifest(p).refs));
            return about;
        }
        const auto c = parse_model_config(j, p.string());
        return {{"kind", "model config, valid"},
                {"hidden_size", c.hidden_size},
                {"vocab_size", c.vocab_size},
                {"draft_vocab_size", c.draft_vocab_size}};
    }

    static OrderedJson refs_of(const std::vector<SampleRef>& refs) {
        std::int64_t tokens = 0, bytes = 0;
        std::set<std::string> stores;
        for (const auto& r : refs) {
            tokens += r.num_tokens, bytes += r.estimated_bytes;
            stores.insert(r.feature_store_uri.substr(0, r.feature_store_uri.rfind('/')));
        }
        return {{"samples", refs.size()},
                {"tokens", tokens},
                {"size", bytes_text(static_cast<double>(bytes))},
                {"stores", stores}};
    }

    static OrderedJson stream_file(const std::filesystem::path& p) {
        ManifestStreamReader reader(p);
        std::vector<SampleRef> refs;
        reader.poll(refs);
        if (!reader.header())
            throw DataError("no manifest stream, or one that has no header yet", p.string(),
                            "Name the stream that ingest --stream wrote");
        OrderedJson about{{"kind", reader.finished()  ? "manifest stream, finished"
                                   : reader.failure() ? "manifest stream, its producer failed"
                                                      : "manifest stream, no end yet"},
                          {"stream", reader.header()->stream_id},
                          {"producer", reader.header()->producer}};
        if (reader.failure()) about["failure"] = *reader.failure();
        about.update(refs_of(refs));
        return about;
    }

    static OrderedJson ledger_file(const std::filesystem::path& p) {
        const auto s = Ledger::read(p);
        return {{"kind", "acknowledgement ledger, good"},
                {"run", s.run},
                {"acknowledged", s.acknowledged},
                {"freed", s.freed},
                {"last_step", s.last_step}};
    }

    static OrderedJson with_tensors(const std::string& kind,
                                    const std::vector<NamedTensor>& tensors,
                                    const OrderedJson& about) {
        OrderedJson j{{"kind", kind}, {"number of tensors", tensors.size()}};
        if (about.is_object()) j.update(about);
        for (const auto& t : tensors)
            j["tensors"].push_back(t.name + " " + std::string(name_of(t.tensor.dtype)) + " " +
                                   t.tensor.shape.text());
        return j;
    }

    std::string path_;
    bool list_ = false;
};

}  // namespace eyas::cli
