/* The file that is made from a journal: which columns, and complete or not at all. */
#include "journal/journal_internal.h"

#include "base/error.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { TEMPORARY_NAMES = 100 };

const lb_column lb_journal_column[LB_JOURNAL_COLUMNS] = {
    {"id", LB_COLUMN_TEXT},
    {"answer", LB_COLUMN_TEXT},
    {"raw_response", LB_COLUMN_TEXT},
    {"prompt", LB_COLUMN_TEXT},
    {"question", LB_COLUMN_NUMBER},
    {"video_path", LB_COLUMN_TEXT},
    {"fallback", LB_COLUMN_FLAG},
    {"error", LB_COLUMN_TEXT},
    {"truth", LB_COLUMN_TEXT},
    {"adapted", LB_COLUMN_TEXT},
    {"n_choices", LB_COLUMN_NUMBER},
    {"letter_logits", LB_COLUMN_JSON},
    {"letter_probabilities", LB_COLUMN_JSON},
    {"n_prompt_tokens", LB_COLUMN_NUMBER},
    {"n_new_tokens", LB_COLUMN_NUMBER},
    {"decode_s", LB_COLUMN_NUMBER},
    {"detect_s", LB_COLUMN_NUMBER},
    {"encode_s", LB_COLUMN_NUMBER},
    {"prompt_s", LB_COLUMN_NUMBER},
    {"generate_s", LB_COLUMN_NUMBER},
    {"elapsed_s", LB_COLUMN_NUMBER},
    {"device_bytes", LB_COLUMN_NUMBER},
};

static void list_columns(char *text, size_t n) {
    size_t used = 0;
    for (int i = 0; i < LB_JOURNAL_COLUMNS && used < n; i++)
        used += (size_t)snprintf(text + used, n - used, "%s%s", i ? "," : "", lb_journal_column[i].name);
}

/* The chosen columns in their order. columns NULL: the first n_default. */
static lb_status parse_columns(const char *columns, int n_default, int chosen[LB_JOURNAL_COLUMNS], int *n,
                               lb_error *error) {
    *n = 0;
    while (!columns && *n < n_default) {
        chosen[*n] = *n;
        ++*n;
    }
    for (const char *at = columns; at; at++) {
        at += strspn(at, " ");
        size_t length = strcspn(at, ","), trimmed = length;
        while (trimmed && at[trimmed - 1] == ' ')
            trimmed--;
        int column = 0;
        while (column < LB_JOURNAL_COLUMNS && (strlen(lb_journal_column[column].name) != trimmed ||
                                               memcmp(lb_journal_column[column].name, at, trimmed)))
            column++;
        if (column == LB_JOURNAL_COLUMNS) {
            char all[512];
            list_columns(all, sizeof all);
            return lb_error_set(error, LB_STATUS_INVALID_ARGUMENT, "columns \"%s\": '%.*s' is none of %s", columns,
                                (int)(trimmed < 80 ? trimmed : 80), at, all);
        }
        for (int i = 0; i < *n; i++)
            if (chosen[i] == column)
                return lb_error_set(error, LB_STATUS_INVALID_ARGUMENT, "columns \"%s\": %s is there twice", columns,
                                    lb_journal_column[column].name);
        chosen[(*n)++] = column;
        at += length;
        if (!*at)
            break;
    }
    return LB_STATUS_OK;
}

lb_status lb_journal_check_columns(const char *columns, lb_error *error) {
    int chosen[LB_JOURNAL_COLUMNS], n;
    return parse_columns(columns, LB_JOURNAL_CSV_COLUMNS, chosen, &n, error);
}

/* Stops at the first row that could not be written (ferror), with *system_code telling why. */
static lb_status write_rows(lb_journal *journal, FILE *file, lb_journal_format format, const int *chosen, int n,
                            int *system_code, lb_error *error) {
    char sql[1024] = "SELECT ";
    size_t used = strlen(sql);
    for (int i = 0; i < n; i++)
        used +=
            (size_t)snprintf(sql + used, sizeof sql - used, "%s%s", i ? ", " : "", lb_journal_column[chosen[i]].name);
    snprintf(sql + used, sizeof sql - used, " FROM answer ORDER BY question");
    sqlite3_stmt *rows = NULL;
    if (format == LB_JOURNAL_CSV)
        lb_csv_write_line(file, NULL, chosen, n);
    int code = sqlite3_prepare_v2(journal->db, sql, -1, &rows, NULL);
    while (code == SQLITE_OK || code == SQLITE_ROW) {
        errno = 0;
        code = sqlite3_step(rows);
        if (code == SQLITE_ROW) {
            if (format == LB_JOURNAL_CSV)
                lb_csv_write_line(file, rows, chosen, n);
            else
                lb_jsonl_write_line(file, rows, chosen, n);
            /* a value that is there but could not be had as text */
            if (sqlite3_errcode(journal->db) == SQLITE_NOMEM)
                code = SQLITE_NOMEM;
        }
        if (ferror(file)) {
            *system_code = errno ? errno : EIO;
            break;
        }
    }
    lb_status status = LB_STATUS_OK;
    if (*system_code)
        status = LB_STATUS_IO; /* the caller names the file */
    else if (code == SQLITE_NOMEM)
        status = lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "%s: no memory", journal->path);
    else if (code != SQLITE_DONE)
        status = lb_journal_fault(journal, error);
    sqlite3_finalize(rows);
    return status;
}

int lb_journal_open_temporary(const char *path, char **name) {
    const char *slash = strrchr(path, '/');
    int folder = slash ? (int)(slash - path) + 1 : 0;
    for (int i = 0; i < TEMPORARY_NAMES; i++) {
        if (asprintf(name, "%.*s.lowbeam-%ld-%d.tmp", folder, path, (long)getpid(), i) < 0) {
            *name = NULL;
            errno = ENOMEM;
            return -1;
        }
        int fd = open(*name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (fd >= 0)
            return fd;
        int code = errno;
        free(*name);
        *name = NULL;
        errno = code;
        if (code != EEXIST)
            return -1;
    }
    return -1;
}

/* Where the file is to go: behind a link, so that the link stays. */
static lb_status resolve(const char *path, char **target, lb_error *error) {
    struct stat info;
    *target = NULL;
    if (!path[0])
        return lb_error_set(error, LB_STATUS_INVALID_ARGUMENT, "the name of the file to write is empty");
    if (stat(path, &info)) {
        if (errno != ENOENT)
            return lb_journal_system_fault(error, path, errno);
        *target = strdup(path);
    } else if (S_ISREG(info.st_mode)) {
        *target = realpath(path, NULL);
    } else {
        return lb_error_set(error, LB_STATUS_REFUSED, "%s: is %s; name a file", path,
                            S_ISDIR(info.st_mode) ? "a folder" : "no regular file");
    }
    return *target ? LB_STATUS_OK : lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "%s: no memory", path);
}

static lb_status write_to_stdout(lb_journal *journal, lb_journal_format format, const int *chosen, int n,
                                 lb_error *error) {
    int code = 0;
    lb_status status = write_rows(journal, stdout, format, chosen, n, &code, error);
    if (!code && status == LB_STATUS_OK && fflush(stdout))
        code = errno;
    if (code)
        status = lb_error_set(error, LB_STATUS_IO, "standard output: cannot be written: %s", strerror(code));
    return status;
}

lb_status lb_journal_export(lb_journal *journal, const char *path, lb_journal_format format, const char *columns,
                            lb_error *error) {
    int chosen[LB_JOURNAL_COLUMNS], n, fd = -1, code = 0;
    char *target = NULL, *temporary = NULL;
    FILE *file = NULL;
    lb_status status = parse_columns(columns, format == LB_JOURNAL_CSV ? LB_JOURNAL_CSV_COLUMNS : LB_JOURNAL_COLUMNS,
                                     chosen, &n, error);
    if (status == LB_STATUS_OK && !path)
        return write_to_stdout(journal, format, chosen, n, error);
    if (status != LB_STATUS_OK || (status = resolve(path, &target, error)) != LB_STATUS_OK)
        goto cleanup;
    if ((fd = lb_journal_open_temporary(target, &temporary)) < 0 || !(file = fdopen(fd, "w"))) {
        status = lb_journal_system_fault(error, path, errno);
        goto cleanup;
    }
    fd = -1; /* the stream's now */
    status = write_rows(journal, file, format, chosen, n, &code, error);
    if (status != LB_STATUS_OK && !code)
        goto cleanup;
    if (!code && (fflush(file) || fsync(fileno(file))))
        code = errno;
    if (fclose(file) && !code)
        code = errno;
    file = NULL;
    if (!code && rename(temporary, target))
        code = errno;
    if (!code) {
        free(temporary);
        temporary = NULL;
        code = lb_journal_sync_folder(target);
    }
    if (code)
        status = lb_journal_system_fault(error, path, code);
cleanup:
    if (file)
        fclose(file);
    if (fd >= 0)
        close(fd);
    if (temporary)
        unlink(temporary);
    free(temporary);
    free(target);
    return status;
}

lb_status lb_journal_write_csv(lb_journal *journal, const char *path, const char *columns, lb_error *error) {
    return lb_journal_export(journal, path, LB_JOURNAL_CSV, columns, error);
}
