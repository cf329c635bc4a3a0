#include "eyas/collective/life_line.hpp"

#include <catch2/catch.hpp>
#include <optional>
#include <thread>

#include "eyas/collective/meeting.hpp"
#include "tests/collective/free_port.hpp"
#include "tests/collective/thread_group.hpp"

using namespace eyas;
using detail::LifeLine;

namespace {
/// What one that waits for others hears in the end.
std::string wait_for_loss(LifeLine& line) {
    for (;;) {
        if (const auto loss = line.loss(); !loss.empty()) return loss;
        std::this_thread::yield();
    }
}

/// f(rank, line) on a thread for each of three ranks that have met.
template <class F>
void in_threes(F f) {
    const auto port = test::free_port();
    for (const auto& e : test::on_ranks(3, [&](int rank) {
             const Rendezvous r{rank, 3, "127.0.0.1", port, std::chrono::minutes(1)};
             detail::Meeting meeting(r, Limit::within(r.timeout));
             meeting.exchange({"", "", ""});
             std::optional<LifeLine> line(meeting.take_links());
             f(rank, line);
         }))
        CHECK(test::text_of(e) == "");
}
}  // namespace

TEST_CASE("rank 0 sees who goes, and tells the others") {
    for (const int goes : {1, 2}) {
        std::string heard[3];
        in_threes([&](int rank, std::optional<LifeLine>& line) {
            if (rank == goes) return line.reset();
            heard[rank] = wait_for_loss(*line);
            line->cut(heard[rank]);
        });
        for (int r = 0; r < 3; ++r)
            CHECK(heard[r] == (r == goes ? "" : "rank " + std::to_string(goes) + " went away"));
    }
}

TEST_CASE("that rank 0 goes is seen by all") {
    std::string heard[3];
    in_threes([&](int rank, std::optional<LifeLine>& line) {
        if (rank == 0) return line.reset();
        heard[rank] = wait_for_loss(*line);
    });
    CHECK((heard[1] == "rank 0 went away" && heard[2] == "rank 0 went away"));
}

TEST_CASE("who ends the line says why, and nothing is heard as long as all is well") {
    std::string before[3], heard[3],
        after[3];  // checked at the end: Catch2's CHECK is for one thread
    test::ThreadGroup group(3);
    in_threes([&](int rank, std::optional<LifeLine>& line) {
        before[rank] = line->loss();
        group.meet();
        if (rank == 2) {
            line->cut("rank 2 failed (" + std::string(1000, 'x') + ")");
        } else {
            heard[rank] = wait_for_loss(*line);
            line->cut(heard[rank]);
        }
        after[rank] = line->loss();
    });
    const auto said = "rank 2 failed (" + std::string(385, 'x');
    CHECK((heard[0] == said && heard[1] == said));
    for (int r = 0; r < 3; ++r) {
        CHECK(before[r] == "");
        CHECK(after[r] == heard[r]);  // the first stays
    }
}
