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

const char lb_journal_append_sql[] =
    "INSERT OR REPLACE INTO answer VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)";

enum { MAX_CHOICES = 8 };

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
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return lb_error_set(error, LB_STATUS_FORMAT,
                            "%s: is damaged (%s); what is in it cannot be relied on: go back to a copy, or begin anew "
                            "with another --out",
                            journal->path, sqlite3_errmsg(journal->db));
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

void lb_journal_bind_text(sqlite3_stmt *statement, int column, const char *text, bool *out_of_memory) {
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
    lb_journal_bind_text(statement, column, text, out_of_memory);
}

static void bind_letter(sqlite3_stmt *statement, int column, int letter, bool *out_of_memory) {
    char text[2] = {(char)('A' + letter), 0};
    lb_journal_bind_text(statement, column, letter < 0 ? NULL : text, out_of_memory);
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
    lb_journal_bind_text(s, ++column, r->id, &out_of_memory);
    lb_journal_bind_text(s, ++column, r->video_path, &out_of_memory);
    bind_letter(s, ++column, r->letter, &out_of_memory);
    sqlite3_bind_int(s, ++column, r->fallback);
    lb_journal_bind_text(s, ++column, r->text, &out_of_memory);
    lb_journal_bind_text(s, ++column, r->prompt, &out_of_memory);
    lb_journal_bind_text(s, ++column, r->error, &out_of_memory);
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
    sqlite3_bind_double(s, ++column, r->elapsed_s);
    if (r->device_bytes < 0)
        sqlite3_bind_null(s, ++column);
    else
        sqlite3_bind_int64(s, ++column, r->device_bytes);
    lb_journal_bind_text(s, ++column, r->adapted, &out_of_memory);

    lb_status status = LB_STATUS_OK;
    if (out_of_memory)
        status = lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "%s: no memory", journal->path);
    else if (sqlite3_step(s) != SQLITE_DONE)
        status = lb_journal_fault(journal, error);
    sqlite3_reset(s);
    sqlite3_clear_bindings(s);
    return status;
}

static int letter_of(sqlite3_stmt *s, int column) {
    const char *text = (const char *)sqlite3_column_text(s, column);
    return text && text[0] >= 'A' && text[0] < 'A' + MAX_CHOICES ? text[0] - 'A' : -1;
}

lb_status lb_journal_each(lb_journal *journal, lb_journal_state_fn fn, void *user, lb_error *error) {
    sqlite3_stmt *s = NULL;
    lb_status status = LB_STATUS_OK;
    int code = sqlite3_prepare_v2(journal->db,
                                  "SELECT question, answer, fallback, error IS NOT NULL FROM answer ORDER BY question",
                                  -1, &s, NULL);
    while (code == SQLITE_OK || code == SQLITE_ROW) {
        code = sqlite3_step(s);
        if (code != SQLITE_ROW)
            break;
        lb_journal_state state = {.index = sqlite3_column_int64(s, 0),
                                  .letter = letter_of(s, 1),
                                  .fallback = sqlite3_column_int(s, 2) != 0,
                                  .failed = sqlite3_column_int(s, 3) != 0};
        if ((status = fn(&state, user, error)) != LB_STATUS_OK)
            break;
    }
    if (status == LB_STATUS_OK && code != SQLITE_DONE)
        status = lb_journal_fault(journal, error);
    sqlite3_finalize(s);
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
    if (journal->lock_fd >= 0)
        close(journal->lock_fd);
    free(journal->path);
    free(journal);
}
