#pragma once
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tests/capture/tiny_llama.hpp"
#include "tests/programs/process.hpp"

namespace eyas::test {

/// The main job in small: a tiny target, conversations, a draft config; commands run on it through
/// the `eyas` program, as a user would type them.
class TinyJob {
public:
    TinyJob() {
        TinyLlama().write(path("target"));
        Json draft = TinyLlama().config();
        draft["num_hidden_layers"] = 1;
        draft["draft_vocab_size"] = 30;
        draft["tie_word_embeddings"] = false;
        draft["architectures"] = {"LlamaForCausalLMEagle3"};
        write_text_file(path("draft.json"), draft.dump());
        std::string lines;
        for (std::uint32_t i = 0; i < 12; ++i) {
            const std::vector<int> mask(24, 1);
            lines += Json{{"input_ids", random_ids(24, 30, i)}, {"loss_mask", mask}}.dump() + "\n";
        }
        write_text_file(path("conversations.jsonl"), lines);
    }

    std::string path(const std::string& name) const { return (scratch_.path() / name).string(); }

    std::unique_ptr<Process> start(const std::vector<std::string>& arguments,
                                   const std::map<std::string, std::string>& environment = {},
                                   const std::string& program = "examples/cli/eyas") const {
        std::vector<std::string> command{program};
        command.insert(command.end(), arguments.begin(), arguments.end());
        return std::make_unique<Process>(command, scratch_.path(), environment);
    }

    /// Runs to the end; throws unless the exit code is `code`.
    std::unique_ptr<Process> run(const std::vector<std::string>& arguments, int code = 0,
                                 const std::map<std::string, std::string>& environment = {}) const {
        auto p = start(arguments, environment);
        const int got = p->wait();
        if (got == code) return p;
        std::string words = "eyas";
        for (const auto& a : arguments) words += " " + a;
        throw std::runtime_error(words + "\nended with " + std::to_string(got) + ", not " +
                                 std::to_string(code) + ":\n" + p->output() + p->errors());
    }

    void capture() const {
        run({"capture", "--model", path("target"), "--conversations", path("conversations.jsonl"),
             "--layers", "0,2,4", "--out", path("features")});
        run({"vocab-map", "--features", path("features"), "--vocab-size", "50",
             "--draft-vocab-size", "30", "--out", path("map.safetensors")});
    }
    std::string store() const { return "disagg:" + path("store") + "?store_id=tiny"; }
    std::vector<std::string> ingest() const {
        return {"ingest", "--features", path("features"),     "--store",
                store(),  "--manifest", path("manifest.json")};
    }
    /// `eyas train` into run directory `out`; colocated unless `more` names another store.
    std::vector<std::string> train(const std::string& out, const std::vector<std::string>& source,
                                   const std::vector<std::string>& more = {}) const {
        std::vector<std::string> words{"train",
                                       "--target",
                                       path("target"),
                                       "--draft-config",
                                       path("draft.json"),
                                       "--vocab-map",
                                       path("map.safetensors"),
                                       "--ttt-length",
                                       "2",
                                       "--lr",
                                       "1e-3",
                                       "--out",
                                       path(out)};
        words.insert(words.end(), source.begin(), source.end());
        words.insert(words.end(), more.begin(), more.end());
        return words;
    }
    std::vector<std::string> colocated() const { return {"--store", "file:" + path("features")}; }
    std::vector<std::string> disaggregated() const {
        return {"--store", store(), "--manifest", path("manifest.json")};
    }

private:
    ScratchDirectory scratch_;
};

}  // namespace eyas::test
