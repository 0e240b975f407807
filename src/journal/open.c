/* How a journal is found again, and belongs to one process. */
#include "journal/journal_internal.h"

#include "base/error.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    BUSY_MS = 10000,
    LOCK_BYTE = 0x40000000 + 4096, /* SQLite's own locks are at 0x40000000 to 0x40000000 + 511 */
    PID_MAX = 1 << 22
};

/* SQLite gives meanings of its own to "", ":memory:" and, where it was built so, "file:..."; a name that begins with
 * "./" or "/" has none. */
int lb_journal_open_database(const char *path, int flags, sqlite3 **db) {
    char *plain;
    if (asprintf(&plain, "%s%s", path[0] == '/' ? "" : "./", path) < 0)
        return SQLITE_NOMEM;
    int code = sqlite3_open_v2(plain, db, flags | SQLITE_OPEN_FULLMUTEX, NULL);
    free(plain);
    return code;
}

/* Write-ahead log with an fsync for each answer. Where it cannot be had (a file system without shared memory) SQLite
 * stays with its rollback journal; EXTRA then also makes the removal of that file durable. */
static int make_durable(sqlite3 *db) {
    sqlite3_stmt *mode = NULL;
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

/* The lock is two bytes: LOCK_BYTE, and the one that lies the process's id further, which tells the id to others. It is
 * of the kind that belongs to the open file (F_OFD_SETLK): SQLite's own locks belong to the process, and when it gives
 * one of those up it gives up all that the process has on the file. The kernel releases it when the process ends,
 * by SIGKILL too. */
static int set_lock(int fd, off_t offset) {
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = LOCK_BYTE + offset, .l_len = 1};
    return fcntl(fd, F_OFD_SETLK, &lock);
}

static long owner_of(int fd) {
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = LOCK_BYTE + 1, .l_len = PID_MAX};
    return fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK ? (long)(lock.l_start - LOCK_BYTE) : 0;
}

long lb_journal_owner(const char *path) {
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return 0;
    long owner = owner_of(fd);
    close(fd);
    return owner;
}

static lb_status take_lock(lb_journal *journal, lb_error *error) {
    journal->lock_fd = open(journal->path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (journal->lock_fd < 0)
        return lb_journal_system_fault(error, journal->path, errno);
    if (set_lock(journal->lock_fd, 0) == 0 && set_lock(journal->lock_fd, getpid()) == 0)
        return LB_STATUS_OK;
    int code = errno;
    if (code != EAGAIN && code != EACCES)
        return lb_error_set(error, LB_STATUS_IO, "%s: cannot be locked: %s; name another folder with --out",
                            journal->path, strerror(code));
    long owner = owner_of(journal->lock_fd); /* 0: it has not come to its second byte yet, or has ended since */
    char name[32] = "another process";
    if (owner)
        snprintf(name, sizeof name, "process %ld", owner);
    return lb_error_set(error, LB_STATUS_REFUSED, "%s: %s is writing it; wait until it has ended, or end it",
                        journal->path, name);
}

lb_status lb_journal_new(const char *path, lb_journal **journal, lb_error *error) {
    *journal = NULL;
    if (!path[0])
        return lb_error_set(error, LB_STATUS_INVALID_ARGUMENT, "the journal's name is empty");
    lb_journal *made = calloc(1, sizeof *made);
    if (!made || !(made->path = strdup(path))) {
        free(made);
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "%s: no memory", path);
    }
    made->lock_fd = -1;
    *journal = made;
    return LB_STATUS_OK;
}

/* Locked and ready to be written. */
lb_status lb_journal_open_for_writing(lb_journal *journal, lb_error *error) {
    lb_status status = take_lock(journal, error);
    if (status != LB_STATUS_OK)
        return status;
    if (lb_journal_open_database(journal->path, SQLITE_OPEN_READWRITE, &journal->db) != SQLITE_OK)
        return lb_journal_fault(journal, error);
    sqlite3_busy_timeout(journal->db, BUSY_MS);
    return LB_STATUS_OK;
}

lb_status lb_journal_prepare_append(lb_journal *journal, lb_error *error) {
    if (make_durable(journal->db) != SQLITE_OK ||
        sqlite3_prepare_v3(journal->db, lb_journal_append_sql, -1, SQLITE_PREPARE_PERSISTENT, &journal->append, NULL) !=
            SQLITE_OK)
        return lb_journal_fault(journal, error);
    return LB_STATUS_OK;
}

/* What can be seen of a file before SQLite has it: no journal at all, or one that was cut to nothing. */
static lb_status check_head(const char *path, lb_error *error) {
    static const char magic[16] = "SQLite format 3"; /* with its NUL */
    uint8_t head[100];
    struct stat st;
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st)) {
        int code = errno;
        if (fd >= 0)
            close(fd);
        return lb_error_set(error, code == ENOENT || code == ENOTDIR ? LB_STATUS_NOT_FOUND : LB_STATUS_IO, "%s: %s",
                            path, strerror(code));
    }
    ssize_t n = S_ISREG(st.st_mode) ? read(fd, head, sizeof head) : -1;
    close(fd);
    if (!S_ISREG(st.st_mode))
        return lb_error_set(error, LB_STATUS_REFUSED, "%s: is no regular file, so no journal", path);
    if (n == 0)
        return lb_error_set(error, LB_STATUS_FORMAT,
                            "%s: is empty: it was cut short, and its answers are gone; go back to a copy, or remove it "
                            "to begin anew",
                            path);
    uint32_t application =
        n < 72 ? 0 : (uint32_t)head[68] << 24 | (uint32_t)head[69] << 16 | (uint32_t)head[70] << 8 | head[71];
    if (n < (ssize_t)sizeof head || memcmp(head, magic, sizeof magic) || application != LB_JOURNAL_APPLICATION)
        return lb_error_set(error, LB_STATUS_FORMAT, "%s: is no journal of lowbeam's, or a damaged one", path);
    return LB_STATUS_OK;
}

static lb_status read_number(lb_journal *journal, const char *sql, int *value, lb_error *error) {
    sqlite3_stmt *s = NULL;
    lb_status status = LB_STATUS_OK;
    if (sqlite3_prepare_v2(journal->db, sql, -1, &s, NULL) != SQLITE_OK || sqlite3_step(s) != SQLITE_ROW)
        status = lb_journal_fault(journal, error);
    else
        *value = sqlite3_column_int(s, 0);
    sqlite3_finalize(s);
    return status;
}

static lb_status check_version(lb_journal *journal, lb_error *error) {
    int version = 0;
    lb_status status = read_number(journal, "PRAGMA user_version", &version, error);
    if (status == LB_STATUS_OK && version != LB_JOURNAL_VERSION)
        status = lb_error_set(error, LB_STATUS_FORMAT,
                              "%s: was written by %s lowbeam (version %d of the tables, this one has %d); use that one",
                              journal->path, version < LB_JOURNAL_VERSION ? "an older" : "a newer", version,
                              LB_JOURNAL_VERSION);
    return status;
}

/* Pages that are missing or make no sense, anywhere in the file: better seen now than after hours. */
static lb_status check_pages(lb_journal *journal, lb_error *error) {
    sqlite3_stmt *s = NULL;
    lb_status status = LB_STATUS_OK;
    if (sqlite3_prepare_v2(journal->db, "PRAGMA quick_check(1)", -1, &s, NULL) != SQLITE_OK ||
        sqlite3_step(s) != SQLITE_ROW) {
        status = lb_journal_fault(journal, error);
    } else {
        const char *text = (const char *)sqlite3_column_text(s, 0);
        if (!text || strcmp(text, "ok") != 0)
            status = lb_error_set(error, LB_STATUS_FORMAT,
                                  "%s: is damaged (%.200s); what is in it cannot be relied on: go back to a copy, or "
                                  "begin anew with another --out",
                                  journal->path, text ? text : "no memory");
    }
    sqlite3_finalize(s);
    return status;
}

lb_status lb_journal_open(const char *path, lb_journal **journal, lb_error *error) {
    *journal = NULL;
    lb_journal *made;
    lb_status status = lb_journal_new(path, &made, error);
    if (status == LB_STATUS_OK)
        status = check_head(path, error);
    if (status == LB_STATUS_OK)
        status = lb_journal_open_for_writing(made, error);
    if (status == LB_STATUS_OK)
        status = check_version(made, error);
    if (status == LB_STATUS_OK)
        status = check_pages(made, error);
    if (status == LB_STATUS_OK)
        status = lb_journal_prepare_append(made, error);
    if (status == LB_STATUS_OK)
        *journal = made;
    else {
        if (made && made->db) /* nothing is moved in a file that is not understood */
            sqlite3_db_config(made->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
        lb_journal_close(made);
    }
    return status;
}

/* Where nothing can be written, not even the log's index: a journal that was closed needs neither. A URI, for its
 * "immutable", in which all but letters and digits is written as %XX. */
static int open_immutable(const char *path, sqlite3 **db) {
    char *uri = malloc(3 * strlen(path) + 64), *at = uri;
    if (!uri)
        return SQLITE_NOMEM;
    at += sprintf(at, "file:%s", path[0] == '/' ? "" : "./");
    for (; *path; path++)
        at += sprintf(at, *path == '/' ? "/" : "%%%02X", (unsigned char)*path);
    sprintf(at, "?immutable=1");
    int code = sqlite3_open_v2(uri, db, SQLITE_OPEN_READONLY | SQLITE_OPEN_URI | SQLITE_OPEN_FULLMUTEX, NULL);
    free(uri);
    return code;
}

static bool can_be_read(sqlite3 *db) {
    return db && sqlite3_exec(db, "SELECT count(*) FROM sqlite_schema", NULL, NULL, NULL) == SQLITE_OK;
}

lb_status lb_journal_open_read_only(const char *path, lb_journal **journal, lb_error *error) {
    *journal = NULL;
    lb_journal *made;
    lb_status status = lb_journal_new(path, &made, error);
    if (status == LB_STATUS_OK)
        status = check_head(path, error);
    if (status != LB_STATUS_OK) {
        lb_journal_close(made);
        return status;
    }
    /* The log of a run that was killed has to be gone through, for which SQLite writes its index; but whoever only
     * reads leaves the log where it is. */
    static const int flags[] = {SQLITE_OPEN_READWRITE, SQLITE_OPEN_READONLY};
    for (int i = 0; i < 2 && !can_be_read(made->db); i++) {
        sqlite3_close(made->db);
        made->db = NULL;
        if (lb_journal_open_database(path, flags[i], &made->db) == SQLITE_OK) {
            sqlite3_busy_timeout(made->db, BUSY_MS);
            sqlite3_db_config(made->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
        }
    }
    char *log = NULL;
    struct stat st;
    if (!can_be_read(made->db) && asprintf(&log, "%s-wal", path) > 0 && (stat(log, &st) != 0 || st.st_size == 0)) {
        sqlite3_close(made->db);
        made->db = NULL;
        open_immutable(path, &made->db);
    }
    free(log);
    if (!can_be_read(made->db))
        status = lb_journal_fault(made, error);
    else
        status = check_version(made, error);
    if (status == LB_STATUS_OK)
        *journal = made;
    else
        lb_journal_close(made);
    return status;
}
