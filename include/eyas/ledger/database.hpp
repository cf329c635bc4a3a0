#pragma once
#include <sqlite3.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>

#include "eyas/core/error.hpp"

namespace eyas::detail {

/// Throws the error that an SQLite result code means: DataError for bytes that are no database or a
/// damaged one, ResourceError for everything that the machine or another process refuses.
[[noreturn]] inline void throw_sqlite(int code, sqlite3* db, const std::string& where) {
    const auto text = std::string(db ? ::sqlite3_errmsg(db) : ::sqlite3_errstr(code));
    switch (code & 0xff) {
        case SQLITE_CORRUPT:
        case SQLITE_NOTADB:
        case SQLITE_SCHEMA:
        case SQLITE_ERROR:
        case SQLITE_MISMATCH:
            throw DataError("not a good database: " + text, where,
                            "Restore it, or name another run directory");
        case SQLITE_BUSY:
        case SQLITE_LOCKED:
            throw ResourceError("another process holds the database: " + text, where,
                                "Let it end, then run it again");
        case SQLITE_FULL:
            throw ResourceError("no room: " + text, where, "Free some space and run it again");
        default:
            throw ResourceError("the database cannot be used: " + text, where,
                                "Check permissions and the file system");
    }
}

/// An SQLite database, hardened against files from elsewhere. One thread at a time.
class Database {
public:
    enum class Access { Read, Write };

    /// Write creates the file where it is missing.
    Database(const std::filesystem::path& path, Access access) : where_(path.string()) {
        const int flags = access == Access::Read ? SQLITE_OPEN_READONLY
                                                 : SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE;
        const int code =
            ::sqlite3_open_v2(path.c_str(), &db_, flags | SQLITE_OPEN_NOMUTEX, nullptr);
        if (code != SQLITE_OK) {
            sqlite3* failed = std::exchange(db_, nullptr);
            try {
                throw_sqlite(code, failed, where_);
            } catch (...) {
                ::sqlite3_close(failed);
                throw;
            }
        }
        ::sqlite3_busy_timeout(db_, 5000);
        ::sqlite3_db_config(db_, SQLITE_DBCONFIG_DEFENSIVE, 1, nullptr);
        ::sqlite3_db_config(db_, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, nullptr);
    }
    Database(const Database&) = delete;
    Database& operator=(const Database&) = delete;
    ~Database() { ::sqlite3_close(db_); }

    void run(const char* sql) {
        const int code = ::sqlite3_exec(db_, sql, nullptr, nullptr, nullptr);
        if (code != SQLITE_OK) throw_sqlite(code, db_, where_);
    }

    const std::string& where() const { return where_; }
    sqlite3* handle() const { return db_; }

private:
    std::string where_;
    sqlite3* db_ = nullptr;
};

/// A prepared statement; bind() counts from 1, columns from 0.
class Statement {
public:
    Statement(const Database& db, const char* sql) : db_(db) {
        check(::sqlite3_prepare_v2(db.handle(), sql, -1, &statement_, nullptr));
    }
    Statement(const Statement&) = delete;
    Statement& operator=(const Statement&) = delete;
    ~Statement() { ::sqlite3_finalize(statement_); }

    Statement& bind(int at, std::int64_t value) {
        check(::sqlite3_bind_int64(statement_, at, value));
        return *this;
    }
    /// `text` must live until the next reset().
    Statement& bind(int at, std::string_view text) {
        check(::sqlite3_bind_text64(statement_, at, text.data(), text.size(), SQLITE_STATIC,
                                    SQLITE_UTF8));
        return *this;
    }

    /// Whether there is a (further) row.
    bool step() {
        const int code = ::sqlite3_step(statement_);
        if (code != SQLITE_ROW && code != SQLITE_DONE)
            throw_sqlite(code, db_.handle(), db_.where());
        return code == SQLITE_ROW;
    }
    /// Runs to the end and is ready to be bound again.
    void finish() {
        while (step()) {
        }
        reset();
    }
    void reset() {
        ::sqlite3_reset(statement_);
        ::sqlite3_clear_bindings(statement_);
    }

    std::int64_t integer(int column) const { return ::sqlite3_column_int64(statement_, column); }
    std::string text(int column) const {
        const auto* t = ::sqlite3_column_text(statement_, column);
        const auto n = ::sqlite3_column_bytes(statement_, column);
        return t ? std::string(reinterpret_cast<const char*>(t), static_cast<std::size_t>(n))
                 : std::string();
    }

private:
    void check(int code) const {
        if (code != SQLITE_OK) throw_sqlite(code, db_.handle(), db_.where());
    }

    const Database& db_;
    sqlite3_stmt* statement_ = nullptr;
};

/// Everything between its construction and commit(), or nothing.
class Transaction {
public:
    explicit Transaction(Database& db) : db_(db) { db_.run("BEGIN IMMEDIATE"); }
    Transaction(const Transaction&) = delete;
    Transaction& operator=(const Transaction&) = delete;
    ~Transaction() {
        if (!done_) ::sqlite3_exec(db_.handle(), "ROLLBACK", nullptr, nullptr, nullptr);
    }
    void commit() {
        db_.run("COMMIT");
        done_ = true;
    }

private:
    Database& db_;
    bool done_ = false;
};

}  // namespace eyas::detail
