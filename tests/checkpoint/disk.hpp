#pragma once
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <mutex>
#include <stdexcept>

namespace eyas::test {

/// For what takes no time unless something is broken: a wait that ends, then, instead of the test.
constexpr auto patience = std::chrono::seconds(60);

/// What the disk does to this program: a test that includes this header has its fsync() and write()
/// from here. As long as nobody holds a StoppedDisk or a FullDisk they do what the system does.
class Disk {
public:
    static Disk& get() {
        static Disk disk;
        return disk;
    }

    void stop() {
        const std::lock_guard lock(mutex_);
        stopped_ = true;
    }
    void go() {
        {
            const std::lock_guard lock(mutex_);
            stopped_ = false;
        }
        changed_.notify_all();
    }
    /// Until a thread waits for the disk, which was stopped; throws when none ever does.
    void await_writer() {
        std::unique_lock lock(mutex_);
        if (!changed_.wait_for(lock, patience, [&] { return waiting_ > 0; }))
            throw std::runtime_error("nobody ever waited for the disk");
    }
    void leave_room(std::uint64_t bytes) {
        const std::lock_guard lock(mutex_);
        room_ = bytes;
    }

    int sync(int fd) {
        {
            std::unique_lock lock(mutex_);
            ++waiting_;
            changed_.notify_all();
            const bool goes = changed_.wait_for(lock, patience, [&] { return !stopped_; });
            --waiting_;
            if (!goes) {
                errno = EIO;
                return -1;
            }
        }
        return static_cast<int>(::syscall(SYS_fsync, fd));
    }
    ssize_t write(int fd, const void* bytes, std::size_t size) {
        struct stat s {};
        if (::fstat(fd, &s) == 0 && S_ISREG(s.st_mode)) {
            const std::lock_guard lock(mutex_);
            if (size > room_) {
                errno = ENOSPC;
                return -1;
            }
            if (room_ != unlimited) room_ -= size;
        }
        return ::syscall(SYS_write, fd, bytes, size);
    }

    static constexpr auto unlimited = std::numeric_limits<std::uint64_t>::max();

private:
    std::mutex mutex_;
    std::condition_variable changed_;
    bool stopped_ = false;
    int waiting_ = 0;
    std::uint64_t room_ = unlimited;
};

/// Nothing becomes durable while it lives, or until go().
class StoppedDisk {
public:
    StoppedDisk() { Disk::get().stop(); }
    StoppedDisk(const StoppedDisk&) = delete;
    StoppedDisk& operator=(const StoppedDisk&) = delete;
    ~StoppedDisk() { go(); }
    void go() { Disk::get().go(); }
    void await_writer() { Disk::get().await_writer(); }
};

/// The disk takes so many bytes more while it lives.
class FullDisk {
public:
    explicit FullDisk(std::uint64_t room) { Disk::get().leave_room(room); }
    FullDisk(const FullDisk&) = delete;
    FullDisk& operator=(const FullDisk&) = delete;
    ~FullDisk() { Disk::get().leave_room(Disk::unlimited); }
};

}  // namespace eyas::test

extern "C" int fsync(int fd) { return eyas::test::Disk::get().sync(fd); }
extern "C" ssize_t write(int fd, const void* bytes, std::size_t size) {
    return eyas::test::Disk::get().write(fd, bytes, size);
}
