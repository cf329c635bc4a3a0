#pragma once
#include <fcntl.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <system_error>
#include <utility>

namespace eyas::fake_nccl {

/// How ranks that are processes exchange what they send: files in a directory of their group, in
/// the one that the environment's EYAS_FAKE_NCCL names. A file is there whole or not at all, and
/// whoever takes it removes it, so a rank that is killed leaves no lock that somebody waits for.
class Mailbox {
public:
    struct Mail {
        std::uint64_t type, bytes;
    };

    static const char* root() { return std::getenv("EYAS_FAKE_NCCL"); }
    /// A new group's name; empty where it cannot be made.
    static std::string create() {
        auto path = (std::filesystem::path(root()) / "nccl-XXXXXX").string();
        return ::mkdtemp(path.data()) ? std::filesystem::path(path).filename().string() : "";
    }

    explicit Mailbox(const std::string& name) : directory_(std::filesystem::path(root()) / name) {}

    /// False where another rank has this number or this GPU.
    bool join(int rank, const std::string& gpu) const {
        return claim("gpu-" + gpu) && claim("rank-" + std::to_string(rank));
    }
    int joined() const { return count("rank-"); }
    /// The last rank of all removes the directory.
    void finalize(int rank, int world) const {
        claim("end-" + std::to_string(rank));
        std::error_code ignored;
        if (finalized() >= world) std::filesystem::remove_all(directory_, ignored);
    }
    int finalized() const { return count("end-"); }

    void post(int from, int to, std::uint64_t number, std::uint64_t type,
              std::span<const std::byte> bytes) const {
        const auto path = file(from, to, number), part = path + ".part";
        std::ofstream out(part, std::ios::binary);
        out.write(reinterpret_cast<const char*>(&type), sizeof type);
        out.write(reinterpret_cast<const char*>(bytes.data()),
                  static_cast<std::streamsize>(bytes.size()));
        out.close();
        std::error_code ignored;
        std::filesystem::rename(part, path, ignored);
    }
    /// What has come, if it has.
    std::optional<Mail> look(int from, int to, std::uint64_t number) const {
        Mail mail{};
        std::ifstream in(file(from, to, number), std::ios::binary | std::ios::ate);
        if (!in) return std::nullopt;
        mail.bytes = static_cast<std::uint64_t>(in.tellg()) - sizeof mail.type;
        in.seekg(0);
        in.read(reinterpret_cast<char*>(&mail.type), sizeof mail.type);
        return mail;
    }
    void take(int from, int to, std::uint64_t number, std::span<std::byte> into) const {
        std::ifstream in(file(from, to, number), std::ios::binary);
        in.seekg(sizeof Mail::type);
        in.read(reinterpret_cast<char*>(into.data()), static_cast<std::streamsize>(into.size()));
        std::error_code ignored;
        std::filesystem::remove(file(from, to, number), ignored);
    }

private:
    std::string file(int from, int to, std::uint64_t number) const {
        return (directory_ /
                (std::to_string(from) + "-" + std::to_string(to) + "-" + std::to_string(number)))
            .string();
    }
    bool claim(const std::string& name) const {
        const int fd = ::open((directory_ / name).c_str(), O_CREAT | O_EXCL | O_WRONLY, 0600);
        if (fd >= 0) ::close(fd);
        return fd >= 0;
    }
    /// A directory that is gone was the last rank's to remove.
    int count(const std::string& prefix) const {
        std::error_code error;
        int n = 0;
        for (std::filesystem::directory_iterator it(directory_, error), end; !error && it != end;
             it.increment(error))
            n += it->path().filename().string().starts_with(prefix);
        return error ? std::numeric_limits<int>::max() : n;
    }

    std::filesystem::path directory_;
};

}  // namespace eyas::fake_nccl
