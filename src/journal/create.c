/* How a journal comes to be: complete under its name, or not at all. */
#include "journal/journal_internal.h"

#include "base/error.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* user_version tells a later lowbeam which tables it finds; application_id ("lbjn") that it is a journal at all. */
static const char SCHEMA[] = "PRAGMA application_id = 0x6c626a6e;"
                             "PRAGMA user_version = 4;"
                             "CREATE TABLE run (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;"
                             "CREATE TABLE fingerprint ("
                             "  kind TEXT NOT NULL,"
                             "  name TEXT NOT NULL,"
                             "  n_bytes INTEGER NOT NULL,"
                             "  mtime_ns INTEGER NOT NULL,"
                             "  ctime_ns INTEGER NOT NULL,"
                             "  sha256 TEXT,"
                             "  PRIMARY KEY (kind, name)) WITHOUT ROWID;"
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
                             "  elapsed_s REAL NOT NULL,"
                             "  device_bytes INTEGER,"
                             "  adapted TEXT);";

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

/* The tables and settings in a file of another name, brought to disk. A crash before it gets its own name leaves no
 * journal; so one that is empty or has no tables was damaged, and nobody takes it for new. */
static lb_status build(const char *path, const char *temporary, const char *const *settings,
                       const lb_journal_source *sources, size_t n_sources, lb_error *error) {
    lb_journal under_way = {.path = (char *)path, .lock_fd = -1};
    lb_status status = LB_STATUS_OK;
    if (lb_journal_open_database(temporary, SQLITE_OPEN_READWRITE, &under_way.db) != SQLITE_OK ||
        sqlite3_exec(under_way.db, "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; BEGIN", NULL, NULL, NULL) !=
            SQLITE_OK ||
        sqlite3_exec(under_way.db, SCHEMA, NULL, NULL, NULL) != SQLITE_OK)
        status = lb_journal_fault(&under_way, error);
    if (status == LB_STATUS_OK)
        status = lb_journal_write_settings(&under_way, settings, error);
    for (size_t i = 0; i < n_sources && status == LB_STATUS_OK; i++)
        status =
            lb_journal_put_fingerprint(&under_way, sources[i].kind, sources[i].name, &sources[i].fingerprint, error);
    if (status == LB_STATUS_OK && sqlite3_exec(under_way.db, "COMMIT", NULL, NULL, NULL) != SQLITE_OK)
        status = lb_journal_fault(&under_way, error);
    sqlite3_close(under_way.db);
    if (status != LB_STATUS_OK)
        return status;
    int fd = open(temporary, O_RDWR | O_CLOEXEC);
    int code = fd < 0 || fsync(fd) ? errno : 0;
    if (fd >= 0)
        close(fd);
    return code ? lb_journal_system_fault(error, path, code) : LB_STATUS_OK;
}

static lb_status is_there(lb_error *error, const char *path) {
    long owner = lb_journal_owner(path);
    if (owner)
        return lb_error_set(error, LB_STATUS_REFUSED,
                            "%s: is there already, and process %ld is writing it; name "
                            "another --out",
                            path, owner);
    return lb_error_set(error, LB_STATUS_REFUSED,
                        "%s: is there already, the journal of another run; go on with that one (--resume), remove it, "
                        "or name another --out",
                        path);
}

lb_status lb_journal_check_new(const char *path, lb_error *error) {
    struct stat st;
    return lstat(path, &st) == 0 ? is_there(error, path) : LB_STATUS_OK;
}

/* Gives the finished file its name, which nobody has yet. */
static lb_status give_name(const char *temporary, const char *path, lb_error *error) {
    lb_status status = lb_journal_check_new(path, error);
    if (status != LB_STATUS_OK)
        return status;
    remove_files(path); /* the log of a journal that is gone, which SQLite would take for this one's */
    int code = link(temporary, path) ? errno : 0;
    if (code == EEXIST)
        return is_there(error, path);
    /* a file system without links */
    if (code == EPERM || code == ENOTSUP || code == ENOSYS || code == EMLINK)
        code = rename(temporary, path) ? errno : 0;
    if (!code)
        code = lb_journal_sync_folder(path);
    return code ? lb_journal_system_fault(error, path, code) : LB_STATUS_OK;
}

/* Keeps others that make a journal in the same folder away for the moment: between looking and naming, the log that
 * is removed could otherwise be a new journal's. -1: not to be had. */
static int lock_folder(const char *path) {
    const char *slash = strrchr(path, '/');
    char *folder = slash ? strndup(path, (size_t)(slash - path) + 1) : strdup(".");
    int fd = folder ? open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    free(folder);
    if (fd >= 0 && flock(fd, LOCK_EX)) {
        close(fd);
        fd = -1;
    }
    return fd;
}

lb_status lb_journal_create(const char *path, const char *const *settings, const lb_journal_source *sources,
                            size_t n_sources, lb_journal **journal, lb_error *error) {
    char *temporary = NULL;
    bool named = false;
    *journal = NULL;
    lb_journal *made;
    lb_status status = lb_journal_new(path, &made, error);
    if (status == LB_STATUS_OK)
        status = lb_journal_check_new(path, error);
    if (status != LB_STATUS_OK) {
        lb_journal_close(made);
        return status;
    }
    int folder = lock_folder(path), fd = lb_journal_open_temporary(path, &temporary);
    if (fd < 0) {
        status = lb_journal_system_fault(error, path, errno);
        goto cleanup;
    }
    close(fd);
    if ((status = build(path, temporary, settings, sources, n_sources, error)) != LB_STATUS_OK ||
        (status = give_name(temporary, path, error)) != LB_STATUS_OK)
        goto cleanup;
    named = true;
    if ((status = lb_journal_open_for_writing(made, error)) != LB_STATUS_OK ||
        (status = lb_journal_prepare_append(made, error)) != LB_STATUS_OK)
        goto cleanup;
    *journal = made;
    made = NULL;
    named = false;
cleanup:
    lb_journal_close(made);
    if (named && status != LB_STATUS_REFUSED) /* refused: another process was so quick to open it, and has it now */
        remove_files(path);
    if (temporary)
        unlink(temporary);
    free(temporary);
    if (folder >= 0)
        close(folder);
    return status;
}
