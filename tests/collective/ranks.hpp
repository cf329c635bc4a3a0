#pragma once
#include <chrono>
#include <cstring>
#include <functional>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "eyas/collective/rendezvous.hpp"
#include "eyas/core/file.hpp"
#include "forked.hpp"
#include "tests/checkpoint/run_directory.hpp"
#include "tests/collective/free_port.hpp"

namespace eyas::test {

/// A process for each rank of a world, which share a rendezvous; none of them had a thread when it
/// was made. What a rank returns or throws comes back as text.
class Ranks {
public:
    using Work = std::function<std::string(const Rendezvous&)>;

    Ranks(int world, const Work& work, std::chrono::milliseconds timeout = std::chrono::minutes(2),
          int absent = -1)
        : directory_("ranks-" + std::to_string(number()++)) {
        eyas::create_directories(directory_.path());
        const auto port = free_port();
        for (int rank = 0; rank < world; ++rank)
            processes_.push_back(
                rank == absent ? nullptr : start(work, {rank, world, "127.0.0.1", port, timeout}));
    }

    conformance::Process& process(int rank) {
        return *processes_.at(static_cast<std::size_t>(rank));
    }

    /// Of a rank that was not killed.
    std::string result(int rank) {
        process(rank).wait();
        return read_text_file(file(rank));
    }
    std::vector<std::string> results() {
        std::vector<std::string> all;
        for (int r = 0; r < static_cast<int>(processes_.size()); ++r) all.push_back(result(r));
        return all;
    }
    const std::filesystem::path& directory() const { return directory_.path(); }

private:
    static int& number() {
        static int n = 0;
        return n;
    }
    std::filesystem::path file(int rank) const {
        return directory_.path() / ("rank-" + std::to_string(rank));
    }
    std::unique_ptr<conformance::Process> start(const Work& work, const Rendezvous& r) const {
        return std::make_unique<conformance::Process>([&] {
            std::string text;
            try {
                text = work(r);
            } catch (const Error& e) {
                text = e.what();
            }
            write_text_file(file(r.rank), text);
        });
    }

    RunDirectory directory_;
    std::vector<std::unique_ptr<conformance::Process>> processes_;
};

/// The bytes of values as text, for what a rank returns.
template <class T>
std::string bytes_of(std::span<const T> values) {
    return {reinterpret_cast<const char*>(values.data()), values.size_bytes()};
}
template <class T>
std::vector<T> values_of(const std::string& bytes) {
    std::vector<T> v(bytes.size() / sizeof(T));
    std::memcpy(v.data(), bytes.data(), v.size() * sizeof(T));
    return v;
}

}  // namespace eyas::test
