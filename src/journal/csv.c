#include "journal/journal_internal.h"

#include "base/error.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_COLUMNS = 4, TEMPORARY_NAMES = 100 };
static const char *const COLUMN[MAX_COLUMNS] = {"id", "answer", "raw_response", "prompt"};
static const char ALL_COLUMNS[] = "id,answer,raw_response,prompt";

/* The chosen columns in their order. Their names are those of the journal's table too. */
static lb_status parse_columns(const char *columns, int chosen[MAX_COLUMNS], int *n, lb_error *error) {
    *n = 0;
    for (const char *at = columns;; at++) {
        at += strspn(at, " ");
        size_t length = strcspn(at, ","), trimmed = length;
        while (trimmed && at[trimmed - 1] == ' ')
            trimmed--;
        int column = 0;
        while (column < MAX_COLUMNS && (strlen(COLUMN[column]) != trimmed || memcmp(COLUMN[column], at, trimmed)))
            column++;
        if (column == MAX_COLUMNS)
            return lb_error_set(error, LB_STATUS_INVALID_ARGUMENT, "columns \"%s\": '%.*s' is none of %s", columns,
                                (int)(trimmed < 80 ? trimmed : 80), at, ALL_COLUMNS);
        for (int i = 0; i < *n; i++)
            if (chosen[i] == column)
                return lb_error_set(error, LB_STATUS_INVALID_ARGUMENT, "columns \"%s\": %s is there twice", columns,
                                    COLUMN[column]);
        chosen[(*n)++] = column;
        at += length;
        if (!*at)
            return LB_STATUS_OK;
    }
}

lb_status lb_journal_check_columns(const char *columns, lb_error *error) {
    int chosen[MAX_COLUMNS], n;
    return parse_columns(columns ? columns : ALL_COLUMNS, chosen, &n, error);
}

/* RFC 4180. An empty field is quoted, so that a line of one column never looks like no line, and so is one with blanks
 * at its ends, which some readers take off. */
static void write_field(FILE *file, const char *text) {
    size_t n = strlen(text);
    if (n && !strpbrk(text, ",\"\r\n") && text[0] != ' ' && text[0] != '\t' && text[n - 1] != ' ' &&
        text[n - 1] != '\t') {
        fputs(text, file);
        return;
    }
    putc('"', file);
    for (; *text; text++) {
        if (*text == '"')
            putc('"', file);
        putc(*text, file);
    }
    putc('"', file);
}

/* Stops at the first row that could not be written (ferror), with errno still telling why. */
static lb_status write_rows(lb_journal *journal, FILE *file, const int *chosen, int n, int *system_code,
                            lb_error *error) {
    sqlite3_stmt *rows = NULL;
    for (int i = 0; i < n; i++)
        fprintf(file, "%s%s", i ? "," : "", COLUMN[chosen[i]]);
    fputs("\r\n", file);
    int code = sqlite3_prepare_v2(journal->db, "SELECT id, answer, raw_response, prompt FROM answer ORDER BY question",
                                  -1, &rows, NULL);
    while (code == SQLITE_OK || code == SQLITE_ROW) {
        errno = 0;
        code = sqlite3_step(rows);
        for (int i = 0; code == SQLITE_ROW && i < n; i++) {
            const char *text = (const char *)sqlite3_column_text(rows, chosen[i]);
            if (!text) {
                code = SQLITE_NOMEM; /* no column can be NULL */
                break;
            }
            if (i)
                putc(',', file);
            write_field(file, text);
        }
        if (code == SQLITE_ROW)
            fputs("\r\n", file);
        if (ferror(file)) {
            *system_code = errno ? errno : EIO;
            break;
        }
    }
    lb_status status = LB_STATUS_OK;
    if (*system_code)
        status = LB_STATUS_IO; /* the caller names the CSV */
    else if (code == SQLITE_NOMEM)
        status = lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "%s: no memory", journal->path);
    else if (code != SQLITE_DONE)
        status = lb_journal_fault(journal, error);
    sqlite3_finalize(rows);
    return status;
}

/* A new file in path's folder, by a short name: path's own may be as long as names can be. -1 with errno. */
static int open_temporary(const char *path, char **name) {
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
        return lb_error_set(error, LB_STATUS_INVALID_ARGUMENT, "the CSV's name is empty");
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

lb_status lb_journal_write_csv(lb_journal *journal, const char *path, const char *columns, lb_error *error) {
    int chosen[MAX_COLUMNS], n, fd = -1, code = 0;
    char *target = NULL, *temporary = NULL;
    FILE *file = NULL;
    lb_status status = parse_columns(columns ? columns : ALL_COLUMNS, chosen, &n, error);
    if (status != LB_STATUS_OK || (status = resolve(path, &target, error)) != LB_STATUS_OK)
        goto cleanup;
    if ((fd = open_temporary(target, &temporary)) < 0 || !(file = fdopen(fd, "w"))) {
        status = lb_journal_system_fault(error, path, errno);
        goto cleanup;
    }
    fd = -1; /* the stream's now */
    status = write_rows(journal, file, chosen, n, &code, error);
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
