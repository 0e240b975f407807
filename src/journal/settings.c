/* What a journal holds beside the answers: the run's settings, and fingerprints of what the answers come from. */
#include "journal/journal_internal.h"

#include "base/error.h"

#include <stdlib.h>
#include <string.h>

lb_status lb_journal_write_settings(lb_journal *journal, const char *const *settings, lb_error *error) {
    sqlite3_stmt *insert = NULL;
    lb_status status = LB_STATUS_OK;
    if (sqlite3_prepare_v2(journal->db, "INSERT INTO run VALUES (?, ?)", -1, &insert, NULL) != SQLITE_OK)
        status = lb_journal_fault(journal, error);
    for (; status == LB_STATUS_OK && settings && settings[0]; settings += 2) {
        bool out_of_memory = false;
        lb_journal_bind_text(insert, 1, settings[0], &out_of_memory);
        lb_journal_bind_text(insert, 2, settings[1], &out_of_memory);
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

lb_status lb_journal_setting(lb_journal *journal, const char *name, char **value, lb_error *error) {
    sqlite3_stmt *s = NULL;
    lb_status status = LB_STATUS_OK;
    *value = NULL;
    int code = sqlite3_prepare_v2(journal->db, "SELECT value FROM run WHERE name = ?", -1, &s, NULL);
    if (code == SQLITE_OK)
        code = sqlite3_bind_text(s, 1, name, -1, SQLITE_STATIC);
    if (code == SQLITE_OK)
        code = sqlite3_step(s);
    if (code == SQLITE_ROW) {
        const char *text = (const char *)sqlite3_column_text(s, 0);
        if (!text || !(*value = strdup(text)))
            status = lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "%s: no memory", journal->path);
    } else if (code != SQLITE_DONE) {
        status = lb_journal_fault(journal, error);
    }
    sqlite3_finalize(s);
    return status;
}

lb_status lb_journal_put_fingerprint(lb_journal *journal, const char *kind, const char *name,
                                     const lb_fingerprint *fingerprint, lb_error *error) {
    sqlite3_stmt *s = NULL;
    bool out_of_memory = false;
    lb_status status = LB_STATUS_OK;
    if (sqlite3_prepare_v2(journal->db, "INSERT OR REPLACE INTO fingerprint VALUES (?, ?, ?, ?, ?, ?)", -1, &s, NULL) ==
        SQLITE_OK) {
        lb_journal_bind_text(s, 1, kind, &out_of_memory);
        lb_journal_bind_text(s, 2, name, &out_of_memory);
        sqlite3_bind_int64(s, 3, fingerprint->n_bytes);
        sqlite3_bind_int64(s, 4, fingerprint->mtime_ns);
        sqlite3_bind_int64(s, 5, fingerprint->ctime_ns);
        lb_journal_bind_text(s, 6, fingerprint->sha256[0] ? fingerprint->sha256 : NULL, &out_of_memory);
    }
    if (out_of_memory)
        status = lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "%s: no memory", journal->path);
    else if (!s || sqlite3_step(s) != SQLITE_DONE)
        status = lb_journal_fault(journal, error);
    sqlite3_finalize(s);
    return status;
}

lb_status lb_journal_get_fingerprint(lb_journal *journal, const char *kind, const char *name,
                                     lb_fingerprint *fingerprint, bool *found, lb_error *error) {
    sqlite3_stmt *s = NULL;
    bool out_of_memory = false;
    int code = sqlite3_prepare_v2(
        journal->db, "SELECT n_bytes, mtime_ns, ctime_ns, sha256 FROM fingerprint WHERE kind = ? AND name = ?", -1, &s,
        NULL);
    *found = false;
    *fingerprint = (lb_fingerprint){0};
    if (code == SQLITE_OK) {
        lb_journal_bind_text(s, 1, kind, &out_of_memory);
        lb_journal_bind_text(s, 2, name, &out_of_memory);
        code = out_of_memory ? SQLITE_NOMEM : sqlite3_step(s);
    }
    lb_status status = LB_STATUS_OK;
    if (code == SQLITE_ROW) {
        const char *sum = (const char *)sqlite3_column_text(s, 3);
        *found = true;
        fingerprint->n_bytes = sqlite3_column_int64(s, 0);
        fingerprint->mtime_ns = sqlite3_column_int64(s, 1);
        fingerprint->ctime_ns = sqlite3_column_int64(s, 2);
        if (sum && strlen(sum) == LB_SHA256_HEX - 1)
            memcpy(fingerprint->sha256, sum, LB_SHA256_HEX);
    } else if (out_of_memory) {
        status = lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "%s: no memory", journal->path);
    } else if (code != SQLITE_DONE) {
        status = lb_journal_fault(journal, error);
    }
    sqlite3_finalize(s);
    return status;
}
