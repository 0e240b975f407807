#include "journal/journal_internal.h"

#include "answer/text.h"
#include "base/error.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* user_version tells a later lowbeam which tables it finds; application_id ("lbjn") that it is a journal at all. */
static const char SCHEMA[] = "PRAGMA application_id = 0x6c626a6e;"
                             "PRAGMA user_version = 2;"
                             "CREATE TABLE run (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;"
                             "CREATE TABLE answer ("
                             "  question INTEGER PRIMARY KEY,"
                             "  id TEXT NOT NULL,"
                             "  video_path TEXT NOT NULL,"
                             "  answer TEXT NOT NULL,"
                             "  fallback INTEGER NOT NULL,"
                             "  raw_response TEXT NOT NULL,"
                             "  prompt TEXT NOT NULL,"
                             "  error TEXT,"
                             "  truth TEXT,"
                             "  n_choices INTEGER NOT NULL,"
                             "  letter_logits TEXT,"
                             "  letter_probabilities TEXT,"
                             "  n_prompt_tokens INTEGER NOT NULL,"
                             "  n_new_tokens INTEGER NOT NULL,"
                             "  decode_s REAL NOT NULL,"
                             "  detect_s REAL NOT NULL,"
                             "  encode_s REAL NOT NULL,"
                             "  prompt_s REAL NOT NULL,"
                             "  generate_s REAL NOT NULL,"
                             "  device_bytes INTEGER);";

static const char APPEND[] = "INSERT OR REPLACE INTO answer VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)";

enum { MAX_CHOICES = 8, BUSY_MS = 10000 };

lb_status lb_journal_system_fault(lb_error *error, const char *path, int code) {
    lb_status status = code == ENOENT || code == ENOTDIR ? LB_STATUS_NOT_FOUND : LB_STATUS_IO;
    const char *way_out = "";
    switch (code) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
        way_out = "; free some space, or name another folder with --out";
        break;
    case EACCES:
    case EPERM:
    case EROFS:
        way_out = "; name a folder that can be written to with --out";
        break;
    case ENOENT:
    case ENOTDIR:
        way_out = "; make its folder first, or name another one with --out";
        break;
    default:
        break;
    }
    return lb_error_set(error, status, "%s: cannot be written: %s%s", path, strerror(code), way_out);
}

lb_status lb_journal_fault(const lb_journal *journal, lb_error *error) {
    int code = journal->db ? sqlite3_errcode(journal->db) : SQLITE_NOMEM;
    int cause = journal->db ? sqlite3_system_errno(journal->db) : 0;
    switch (code) {
    case SQLITE_NOMEM:
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "%s: no memory", journal->path);
    case SQLITE_FULL:
        return lb_journal_system_fault(error, journal->path, ENOSPC);
    case SQLITE_READONLY:
        return lb_journal_system_fault(error, journal->path, EROFS);
    case SQLITE_IOERR:
    case SQLITE_CANTOPEN:
        if (cause)
            return lb_journal_system_fault(error, journal->path, cause);
        return lb_error_set(
            error, LB_STATUS_IO,
            "%s: cannot be written: %s (SQLite's code %d); free some space, or name another folder with "
            "--out",
            journal->path, sqlite3_errmsg(journal->db), sqlite3_extended_errcode(journal->db));
    case SQLITE_BUSY:
        return lb_error_set(error, LB_STATUS_IO, "%s: another program keeps it locked; end that one", journal->path);
    default:
        break;
    }
    return lb_error_set(error, LB_STATUS_IO, "%s: %s", journal->path,
                        journal->db ? sqlite3_errmsg(journal->db) : "not open");
}

int lb_journal_sync_folder(const char *path) {
    const char *slash = strrchr(path, '/');
    char *folder = slash ? strndup(path, (size_t)(slash - path) + 1) : strdup(".");
    if (!folder)
        return ENOMEM;
    int code = 0, fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    /* A folder that may be written to but not read, or a file system that knows no fsync of folders: nothing more can
     * be done, and the file itself is complete. */
    if (fd >= 0 && fsync(fd) && errno != EINVAL && errno != ENOTSUP)
        code = errno;
    if (fd >= 0)
        close(fd);
    free(folder);
    return code;
}

static void remove_files(const char *path) {
    static const char *const suffixes[] = {"", "-wal", "-shm", "-journal"};
    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
        char *name;
        if (asprintf(&name, "%s%s", path, suffixes[i]) < 0)
            continue;
        unlink(name);
        free(name);
    }
}

/* SQLite gives meanings of its own to "", ":memory:" and, where it was built so, "file:..."; a name that begins with
 * "./" or "/" has none. */
static int open_database(const char *path, sqlite3 **db) {
    char *plain;
    if (asprintf(&plain, "%s%s", path[0] == '/' ? "" : "./", path) < 0)
        return SQLITE_NOMEM;
    int code = sqlite3_open_v2(plain, db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_FULLMUTEX, NULL);
    free(plain);
    return code;
}

/* Write-ahead log with an fsync for each answer. Where it cannot be had (a file system without shared memory) SQLite
 * stays with its rollback journal; EXTRA then also makes the removal of that file durable. */
static int make_durable(sqlite3 *db) {
    sqlite3_stmt *mode = NULL;
    sqlite3_busy_timeout(db, BUSY_MS);
    int code = sqlite3_prepare_v2(db, "PRAGMA journal_mode = WAL", -1, &mode, NULL);
    if (code == SQLITE_OK && (code = sqlite3_step(mode)) == SQLITE_ROW) {
        const char *name = (const char *)sqlite3_column_text(mode, 0);
        bool is_wal = name && !strcmp(name, "wal");
        sqlite3_finalize(mode);
        return sqlite3_exec(db, is_wal ? "PRAGMA synchronous = FULL" : "PRAGMA synchronous = EXTRA", NULL, NULL, NULL);
    }
    sqlite3_finalize(mode);
    return code;
}

/* Broken UTF-8, such as a path in an error's text may hold, would make the whole CSV unreadable. */
static void bind_text(sqlite3_stmt *statement, int column, const char *text, bool *out_of_memory) {
    if (!text)
        sqlite3_bind_null(statement, column);
    else if (!lb_text_first_broken(text))
        *out_of_memory |= sqlite3_bind_text(statement, column, text, -1, SQLITE_TRANSIENT) != SQLITE_OK;
    else {
        char *repaired = lb_text_decode(text, strlen(text));
        *out_of_memory |=
            !repaired || sqlite3_bind_text(statement, column, repaired, -1, SQLITE_TRANSIENT) != SQLITE_OK;
        free(repaired);
    }
}

static lb_status write_settings(lb_journal *journal, const char *const *settings, lb_error *error) {
    sqlite3_stmt *insert = NULL;
    lb_status status = LB_STATUS_OK;
    if (sqlite3_prepare_v2(journal->db, "INSERT INTO run VALUES (?, ?)", -1, &insert, NULL) != SQLITE_OK)
        status = lb_journal_fault(journal, error);
    for (; status == LB_STATUS_OK && settings && settings[0]; settings += 2) {
        bool out_of_memory = false;
        bind_text(insert, 1, settings[0], &out_of_memory);
        bind_text(insert, 2, settings[1], &out_of_memory);
        int code = out_of_memory ? SQLITE_NOMEM : sqlite3_step(insert);
        if (code == SQLITE_CONSTRAINT)
            status = lb_error_set(error, LB_STATUS_INVALID_ARGUMENT, "%s: setting \"%s\" twice or without a value",
                                  journal->path, settings[0]);
        else if (code == SQLITE_NOMEM)
            status = lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "%s: no memory", journal->path);
        else if (code != SQLITE_DONE)
            status = lb_journal_fault(journal, error);
        sqlite3_reset(insert);
    }
    sqlite3_finalize(insert);
    return status;
}

lb_status lb_journal_create(const char *path, const char *const *settings, lb_journal **journal, lb_error *error) {
    lb_status status = LB_STATUS_OK;
    lb_journal *made = NULL;
    bool is_ours = false;
    *journal = NULL;
    if (!path[0])
        return lb_error_set(error, LB_STATUS_INVALID_ARGUMENT, "the journal's name is empty");
    /* SQLite would take a file that is there for its own. */
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd < 0 && errno == EEXIST)
        return lb_error_set(error, LB_STATUS_REFUSED, "%s: is there already; remove it, or name another file", path);
    if (fd < 0)
        return lb_journal_system_fault(error, path, errno);
    close(fd);
    is_ours = true;
    if (!(made = calloc(1, sizeof *made)) || !(made->path = strdup(path))) {
        status = lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "%s: no memory", path);
        goto cleanup;
    }
    if (open_database(path, &made->db) != SQLITE_OK || make_durable(made->db) != SQLITE_OK ||
        sqlite3_exec(made->db, "BEGIN", NULL, NULL, NULL) != SQLITE_OK ||
        sqlite3_exec(made->db, SCHEMA, NULL, NULL, NULL) != SQLITE_OK) {
        status = lb_journal_fault(made, error);
        goto cleanup;
    }
    if ((status = write_settings(made, settings, error)) != LB_STATUS_OK)
        goto cleanup;
    if (sqlite3_exec(made->db, "COMMIT", NULL, NULL, NULL) != SQLITE_OK ||
        sqlite3_prepare_v3(made->db, APPEND, -1, SQLITE_PREPARE_PERSISTENT, &made->append, NULL) != SQLITE_OK) {
        status = lb_journal_fault(made, error);
        goto cleanup;
    }
    int code = lb_journal_sync_folder(path);
    if (code) {
        status = lb_journal_system_fault(error, path, code);
        goto cleanup;
    }
    *journal = made;
    made = NULL;
    is_ours = false;
cleanup:
    lb_journal_close(made);
    if (is_ours)
        remove_files(path);
    return status;
}

/* [1.25,-3,null]: enough digits to read the same float back; what is not finite has no JSON number. */
static void bind_floats(sqlite3_stmt *statement, int column, const float *values, int n, bool *out_of_memory) {
    char text[32 * MAX_CHOICES + 3] = "[";
    size_t used = 1;
    if (!values) {
        sqlite3_bind_null(statement, column);
        return;
    }
    for (int i = 0; i < n; i++)
        used += (size_t)snprintf(text + used, sizeof text - used, isfinite(values[i]) ? "%s%.9g" : "%snull",
                                 i ? "," : "", (double)values[i]);
    snprintf(text + used, sizeof text - used, "]");
    bind_text(statement, column, text, out_of_memory);
}

static void bind_letter(sqlite3_stmt *statement, int column, int letter, bool *out_of_memory) {
    char text[2] = {(char)('A' + letter), 0};
    bind_text(statement, column, letter < 0 ? NULL : text, out_of_memory);
}

lb_status lb_journal_append(lb_journal *journal, const lb_journal_record *r, lb_error *error) {
    sqlite3_stmt *s = journal->append;
    bool out_of_memory = false;
    if (r->index < 0 || r->letter < 0 || r->letter >= MAX_CHOICES || r->n_choices < 0 || r->n_choices > MAX_CHOICES ||
        r->truth >= MAX_CHOICES)
        return lb_error_set(error, LB_STATUS_INVALID_ARGUMENT,
                            "%s: a record of question %lld with letter %d, truth %d, %d choices", journal->path,
                            (long long)r->index, r->letter, r->truth, r->n_choices);
    int column = 0;
    sqlite3_bind_int64(s, ++column, r->index);
    bind_text(s, ++column, r->id, &out_of_memory);
    bind_text(s, ++column, r->video_path, &out_of_memory);
    bind_letter(s, ++column, r->letter, &out_of_memory);
    sqlite3_bind_int(s, ++column, r->fallback);
    bind_text(s, ++column, r->text, &out_of_memory);
    bind_text(s, ++column, r->prompt, &out_of_memory);
    bind_text(s, ++column, r->error, &out_of_memory);
    bind_letter(s, ++column, r->truth, &out_of_memory);
    sqlite3_bind_int(s, ++column, r->n_choices);
    bind_floats(s, ++column, r->letter_logits, r->n_choices, &out_of_memory);
    bind_floats(s, ++column, r->letter_probabilities, r->n_choices, &out_of_memory);
    sqlite3_bind_int(s, ++column, r->n_prompt_tokens);
    sqlite3_bind_int(s, ++column, r->n_new_tokens);
    sqlite3_bind_double(s, ++column, r->decode_s);
    sqlite3_bind_double(s, ++column, r->detect_s);
    sqlite3_bind_double(s, ++column, r->encode_s);
    sqlite3_bind_double(s, ++column, r->prompt_s);
    sqlite3_bind_double(s, ++column, r->generate_s);
    if (r->device_bytes < 0)
        sqlite3_bind_null(s, ++column);
    else
        sqlite3_bind_int64(s, ++column, r->device_bytes);

    lb_status status = LB_STATUS_OK;
    if (out_of_memory)
        status = lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "%s: no memory", journal->path);
    else if (sqlite3_step(s) != SQLITE_DONE)
        status = lb_journal_fault(journal, error);
    sqlite3_reset(s);
    sqlite3_clear_bindings(s);
    return status;
}

lb_status lb_journal_count(lb_journal *journal, lb_journal_counts *counts, lb_error *error) {
    static const char QUERY[] = "SELECT count(*), coalesce(sum(fallback), 0), count(error), count(truth), "
                                "coalesce(sum(truth = answer), 0) FROM answer";
    sqlite3_stmt *s = NULL;
    lb_status status = LB_STATUS_OK;
    *counts = (lb_journal_counts){0};
    if (sqlite3_prepare_v2(journal->db, QUERY, -1, &s, NULL) != SQLITE_OK || sqlite3_step(s) != SQLITE_ROW)
        status = lb_journal_fault(journal, error);
    else
        *counts = (lb_journal_counts){.n_records = sqlite3_column_int64(s, 0),
                                      .n_fallbacks = sqlite3_column_int64(s, 1),
                                      .n_errors = sqlite3_column_int64(s, 2),
                                      .n_truths = sqlite3_column_int64(s, 3),
                                      .n_right = sqlite3_column_int64(s, 4)};
    sqlite3_finalize(s);
    return status;
}

void lb_journal_close(lb_journal *journal) {
    if (!journal)
        return;
    sqlite3_finalize(journal->append);
    sqlite3_close(journal->db); /* the last to close moves the log into the file */
    free(journal->path);
    free(journal);
}
