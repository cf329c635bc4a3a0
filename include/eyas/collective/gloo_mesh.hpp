#pragma once
#include <gloo/common/error.h>
#include <gloo/common/logging.h>
#include <gloo/transport/unbound_buffer.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "eyas/collective/gloo_links.hpp"

namespace eyas::detail {

/// A connected group, and transfers between its ranks. One thread uses it. A thread of its own
/// learns of a rank that goes away and ends the waits for it: Gloo itself lets a transfer that is
/// under way sit out its time. The first error ends the group for good.
class GlooMesh {
public:
    /// Returns when all ranks have met. Errors as Meeting's; TransportError for Gloo's.
    explicit GlooMesh(const Rendezvous& r)
        : timeout_(r.timeout),
          where_("rank " + std::to_string(r.rank) + " of " + std::to_string(r.world)) {
        run("joining the group", [&] {
            links_ = std::make_unique<GlooLinks>(r, busy_with_);
            life_ = links_->createUnboundBuffer(nullptr, 0);
            links_->for_each_peer([&](int p) { life_->recv(busy_with_ = p, life_slot); });
            watcher_ = std::thread([this] { watch(); });
        });
    }
    GlooMesh(const GlooMesh&) = delete;
    GlooMesh& operator=(const GlooMesh&) = delete;
    /// Takes leave of the others, unless the group has ended already.
    ~GlooMesh() {
        const WithoutSigpipe quiet;
        if (ended_.empty()) say_goodbye();
        life_->abortWaitRecv();
        watcher_.join();
    }

    /// Transfers of one slot; those of a pair of ranks happen in the order in which both post them.
    /// On destruction their memory is free, whether they ended or not.
    class Wave {
    public:
        Wave(GlooMesh& mesh, std::uint64_t slot) : mesh_(mesh), slot_(slot) {
            const std::lock_guard lock(mesh_.mutex_);
            mesh_.waves_.push_back(this);
        }
        Wave(const Wave&) = delete;
        Wave& operator=(const Wave&) = delete;
        ~Wave() {
            const std::lock_guard lock(mesh_.mutex_);
            std::erase(mesh_.waves_, this);
        }

        void receive(int peer, std::span<std::byte> into) {
            if (!into.empty()) add(receives_, peer, into).recv(peer, slot_);
        }
        void send(int peer, std::span<std::byte> bytes) {
            if (!bytes.empty()) add(sends_, peer, bytes).send(peer, slot_);
        }

        /// Returns when all have ended.
        void wait() {
            for (const auto& t : receives_) {
                mesh_.busy_with_ = t.peer;
                if (!t.buffer->waitRecv(nullptr, mesh_.timeout_)) throw Lost{};
            }
            for (const auto& t : sends_) {
                mesh_.busy_with_ = t.peer;
                if (!t.buffer->waitSend(nullptr, mesh_.timeout_)) throw Lost{};
            }
        }

    private:
        friend class GlooMesh;
        struct Transfer {
            std::unique_ptr<::gloo::transport::UnboundBuffer> buffer;
            int peer;
        };
        ::gloo::transport::UnboundBuffer& add(std::vector<Transfer>& to, int peer,
                                              std::span<std::byte> bytes) {
            mesh_.busy_with_ = peer;
            auto buffer = mesh_.links_->createUnboundBuffer(bytes.data(), bytes.size());
            const std::lock_guard lock(mesh_.mutex_);
            if (mesh_.lost_ >= 0) throw Lost{};
            to.push_back({std::move(buffer), peer});
            return *to.back().buffer;
        }
        void abort() {
            for (auto* all : {&receives_, &sends_})
                for (const auto& t : *all) t.buffer->abortWaitRecv(), t.buffer->abortWaitSend();
        }

        GlooMesh& mesh_;
        std::uint64_t slot_;
        std::vector<Transfer> sends_, receives_;
    };

    /// Calls f, which makes the transfers of one collective call. Throws TransportError for what
    /// goes wrong between ranks; after any error the connections are closed, so that no other rank
    /// waits for this one.
    template <class F>
    void run(const std::string& doing, F&& f) {
        const auto where = where_ + ", " + doing;
        if (!ended_.empty())
            throw TransportError("the group has ended: " + ended_, where, "Start all ranks again");
        const WithoutSigpipe quiet;
        busy_with_ = -1;
        try {
            f();
        } catch (const Lost&) {
            fail_lost(where);
        } catch (const ::gloo::Exception& e) {
            fail(where, e.what());
        } catch (const ::gloo::EnforceNotMet& e) {
            fail(where, e.what());
        } catch (const std::exception& e) {
            end(e.what());
            throw;
        }
    }

    template <class F>
    void for_each_peer(F&& f) const {
        links_->for_each_peer(f);
    }

private:
    static constexpr std::uint64_t life_slot = ~std::uint64_t{0}, probe_slot = life_slot - 1;
    struct Lost {};  // the watcher knows whom

    [[noreturn]] void fail_lost(const std::string& where) {
        {
            const std::lock_guard lock(mutex_);
            busy_with_ = lost_;
        }
        fail(where, "");
    }

    /// `text`: Gloo's, "[file:line] what happened", of a rank that does not answer or is gone.
    [[noreturn]] void fail(const std::string& where, const std::string& text) {
        const auto cut = text.find("] ");
        const auto reason = cut == text.npos ? text : text.substr(cut + 2);
        const bool silent = reason.starts_with("Timed out");
        auto what = busy_with_ < 0 ? reason : "rank " + std::to_string(busy_with_);
        if (busy_with_ >= 0 && silent)
            what += " was silent for " + std::to_string(timeout_.count()) + " ms";
        else if (busy_with_ >= 0)
            what += " went away" + (reason.empty() ? reason : " (" + reason + ")");
        end(what);
        throw TransportError(
            what, where,
            silent ? "Check that all ranks run and make the same calls, or raise the time-out"
                   : "See what that rank said last; then start all ranks again");
    }

    void end(const std::string& why) {
        ended_ = why;
        if (links_ && life_) links_->closeConnections();
    }

    /// A rank that leaves sends the others the message that they wait for all the time; that this
    /// wait fails means that one left without.
    void watch() {
        try {
            for (int left = 0; left + 1 < links_->size; ++left)
                if (!life_->waitRecv(nullptr, std::chrono::hours(24 * 3650))) return;
        } catch (const std::exception&) {
            const int gone = who_is_gone();
            const std::lock_guard lock(mutex_);
            lost_ = gone;
            for (auto* w : waves_) w->abort();
        }
    }

    /// The first rank that nothing can be sent to.
    int who_is_gone() {
        int gone = links_->size;
        const auto probe = links_->createUnboundBuffer(nullptr, 0);
        links_->for_each_peer([&](int p) {
            try {
                if (gone == links_->size) probe->send(p, probe_slot);
            } catch (const std::exception&) {
                gone = p;
            }
        });
        return gone;
    }

    void say_goodbye() {
        const auto goodbye = links_->createUnboundBuffer(nullptr, 0);
        links_->for_each_peer([&](int p) {
            try {
                goodbye->send(p, life_slot);
                goodbye->waitSend(nullptr, std::chrono::seconds(1));
            } catch (const std::exception&) {  // it has left, too
            }
        });
    }

    std::chrono::milliseconds timeout_;
    std::string where_, ended_;  // ended_: why, once it has
    int busy_with_ = -1;         // the rank that is waited for
    std::unique_ptr<GlooLinks> links_;
    std::unique_ptr<::gloo::transport::UnboundBuffer> life_;
    std::mutex mutex_;  // guards what follows
    std::vector<Wave*> waves_;
    int lost_ = -1;
    std::thread watcher_;
};

}  // namespace eyas::detail
