#pragma once
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

#include "eyas/ledger/database.hpp"
#include "eyas/loader/acknowledgement.hpp"

namespace eyas {

/// Counts of a ledger.
struct LedgerSummary {
    std::string run;                // what the samples are of, as the run says it
    std::int64_t acknowledged = 0;  // samples whose training a durable checkpoint contains
    std::int64_t freed = 0;         // of them, those that the store no longer has
    std::int64_t last_step = 0;     // optimizer step of the newest such checkpoint
};

/// The account of a run in an SQLite file: one row per sample whose training is durable (see
/// AcknowledgementSink). With it a resumed run frees what an earlier one was about to free, and
/// notices when freed samples are newer than the checkpoint it resumes from.
///
/// One thread at a time; one process writes (RunLock sees to that), others may read it. Every call
/// is durable on return: write-ahead log, synced at each commit; so the file must lie on this
/// machine's file systems. Errors: DataError for a file that is no ledger or is damaged,
/// ResourceError when another process holds it, or the disk or its permissions refuse.
class Ledger final : public AcknowledgementSink {
public:
    /// Opens or creates the ledger of `run`, a text that says which samples in which order (the
    /// run's data identity). Throws ContractError where the ledger is another run's.
    Ledger(const std::filesystem::path& path, const std::string& run)
        : db_(path, detail::Database::Access::Write) {
        db_.run("PRAGMA synchronous=FULL");
        if (!is_empty()) check_is_ledger(db_);
        if (journal_mode() != "wal")
            throw ResourceError("write-ahead logging is not possible here", db_.where(),
                                "Put the run directory on a file system of this machine");
        create(run);
        if (const auto there = run_of(db_); there != run)
            throw ContractError("the ledger is of another run: " + there + ", this one is " + run,
                                db_.where(), "Name another run directory");
    }

    /// Throws DataError when samples of a later step were freed already: they are gone, and the
    /// training that they took part in is not in the checkpoint that the run goes on from. Later
    /// ones that were not freed yet are forgotten: they come again, perhaps at another step.
    void taken(std::span<const SampleRef* const> refs, std::int64_t step) override {
        check_goes_on(step);
        detail::Transaction all(db_);
        detail::Statement(db_, "DELETE FROM sample WHERE freed = 0 AND step > ?1")
            .bind(1, step)
            .finish();
        detail::Statement insert(
            db_,
            "INSERT INTO sample(sample_id, generation, step, acknowledged_at, freed) "
            "VALUES(?1, ?2, ?3, ?4, 0) ON CONFLICT(sample_id, generation) DO UPDATE SET "
            "step = excluded.step, acknowledged_at = excluded.acknowledged_at WHERE freed = 0");
        const auto now = std::chrono::duration_cast<std::chrono::seconds>(
                             std::chrono::system_clock::now().time_since_epoch())
                             .count();
        for (const auto* r : refs)
            insert.bind(1, r->sample_id)
                .bind(2, r->generation())
                .bind(3, step)
                .bind(4, now)
                .finish();
        all.commit();
    }

    void freed(std::span<const SampleRef* const> refs) override {
        detail::Transaction all(db_);
        detail::Statement update(
            db_, "UPDATE sample SET freed = 1 WHERE sample_id = ?1 AND generation = ?2");
        for (const auto* r : refs) update.bind(1, r->sample_id).bind(2, r->generation()).finish();
        all.commit();
    }

    bool is_freed(const SampleRef& ref) const override {
        detail::Statement find(
            db_, "SELECT 1 FROM sample WHERE sample_id = ?1 AND generation = ?2 AND freed = 1");
        return find.bind(1, ref.sample_id).bind(2, ref.generation()).step();
    }

    LedgerSummary summary() const { return summary_of(db_); }

    /// The counts of a ledger that may be in use. Throws DataError for any other file.
    static LedgerSummary read(const std::filesystem::path& path) {
        const detail::Database db(path, detail::Database::Access::Read);
        check_is_ledger(db);
        return summary_of(db);
    }

private:
    static constexpr std::int64_t application_id = 0x65796173;  // "eyas"
    static constexpr std::int64_t version = 1;

    static std::int64_t number(const detail::Database& db, const char* sql) {
        detail::Statement s(db, sql);
        return s.step() ? s.integer(0) : 0;
    }

    bool is_empty() const {
        return number(db_, "PRAGMA application_id") == 0 &&
               number(db_, "SELECT count(*) FROM sqlite_schema") == 0;
    }

    static void check_is_ledger(const detail::Database& db) {
        if (number(db, "PRAGMA application_id") != application_id ||
            number(db, "PRAGMA user_version") != version)
            throw DataError("not a version 1 ledger of eyas", db.where(),
                            "Name RUN/ledger.sqlite, or another run directory");
        detail::Statement check(db, "PRAGMA quick_check(1)");
        if (!check.step() || check.text(0) != "ok")
            throw DataError("the ledger is damaged: " + check.text(0), db.where(),
                            "Restore it, or name another run directory");
        // Throws where a table or column is missing.
        const detail::Statement run(db, "SELECT id, identity FROM run");
        const detail::Statement samples(
            db, "SELECT sample_id, generation, step, acknowledged_at, freed FROM sample");
    }

    std::string journal_mode() const {
        detail::Statement s(db_, "PRAGMA journal_mode=WAL");
        return s.step() ? s.text(0) : "";
    }

    // Another process may do the same at once: each sees all of it or none.
    void create(const std::string& run) {
        detail::Transaction all(db_);
        if (is_empty()) {
            db_.run(
                "CREATE TABLE run(id INTEGER PRIMARY KEY CHECK(id = 1), identity TEXT NOT NULL) "
                "STRICT;"
                "CREATE TABLE sample(sample_id TEXT NOT NULL, generation INTEGER NOT NULL,"
                " step INTEGER NOT NULL, acknowledged_at INTEGER NOT NULL,"
                " freed INTEGER NOT NULL CHECK(freed IN (0, 1)),"
                " PRIMARY KEY(sample_id, generation)) STRICT, WITHOUT ROWID;"
                "PRAGMA application_id = 1702453619; PRAGMA user_version = 1");
            static_assert(application_id == 1702453619);
            detail::Statement insert(db_, "INSERT INTO run(id, identity) VALUES(1, ?1)");
            insert.bind(1, run).finish();
        }
        all.commit();
    }

    static std::string run_of(const detail::Database& db) {
        detail::Statement s(db, "SELECT identity FROM run");
        return s.step() ? s.text(0) : "";
    }

    static LedgerSummary summary_of(const detail::Database& db) {
        detail::Statement s(
            db, "SELECT count(*), ifnull(sum(freed), 0), ifnull(max(step), 0) FROM sample");
        s.step();
        return {run_of(db), s.integer(0), s.integer(1), s.integer(2)};
    }

    void check_goes_on(std::int64_t step) const {
        detail::Statement s(db_, "SELECT ifnull(max(step), 0) FROM sample WHERE freed = 1");
        s.step();
        if (s.integer(0) > step)
            throw DataError("samples of optimizer step " + std::to_string(s.integer(0)) +
                                " were freed, the run goes on from step " + std::to_string(step),
                            db_.where(),
                            "Restore the newer checkpoint, or ingest the samples again and start "
                            "in a new run directory");
    }

    detail::Database db_;
};

}  // namespace eyas
