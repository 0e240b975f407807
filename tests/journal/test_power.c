/* Power cuts, as far as they can be simulated: all that SQLite writes, cuts and syncs is recorded on the way to the
 * disk. A cut at any moment leaves of each file what was synced, and of what was written since any part: each sector of
 * 512 bytes by itself old or new, in the log also garbage. The journal must open, hold every answer that
 * lb_journal_append had reported as stored by then, and hold each as it was given. LOWBEAM_POWER_CUTS: how many (300).
 */
#include "journal/journal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

enum { DATABASE, LOG, N_FILES, SECTOR = 512, N_ANSWERS = 700 };

typedef enum op_kind { OP_WRITE, OP_CUT, OP_SYNC } op_kind;
typedef struct op {
    op_kind kind;
    int file;
    int64_t at; /* OP_CUT: the new size */
    size_t n;
    uint8_t *bytes;
} op;

static op *ops;
static size_t n_ops, capacity;
static uint8_t *base; /* of the database, when it got its name */
static size_t base_bytes;
static size_t reported[N_ANSWERS + 1]; /* ops there were when answer i was reported; [i] in rising order */

static void record(op_kind kind, int file, int64_t at, const void *bytes, size_t n) {
    if (file < 0)
        return;
    if (n_ops == capacity)
        ops = realloc(ops, (capacity = capacity ? 2 * capacity : 1024) * sizeof *ops);
    ops[n_ops] = (op){kind, file, at, n, n ? malloc(n) : NULL};
    if (n)
        memcpy(ops[n_ops].bytes, bytes, n);
    n_ops++;
}

/* A VFS over SQLite's own that records. */
typedef struct shim {
    sqlite3_file head;
    int file; /* -1: not recorded */
    sqlite3_file *real;
} shim;

#define REAL(f) (((shim *)(f))->real)
static int x_close(sqlite3_file *f) {
    return REAL(f)->pMethods ? REAL(f)->pMethods->xClose(REAL(f)) : SQLITE_OK;
}
static int x_read(sqlite3_file *f, void *to, int n, sqlite3_int64 at) {
    return REAL(f)->pMethods->xRead(REAL(f), to, n, at);
}
static int x_write(sqlite3_file *f, const void *from, int n, sqlite3_int64 at) {
    record(OP_WRITE, ((shim *)f)->file, at, from, (size_t)n);
    return REAL(f)->pMethods->xWrite(REAL(f), from, n, at);
}
static int x_truncate(sqlite3_file *f, sqlite3_int64 size) {
    record(OP_CUT, ((shim *)f)->file, size, NULL, 0);
    return REAL(f)->pMethods->xTruncate(REAL(f), size);
}
static int x_sync(sqlite3_file *f, int flags) {
    (void)flags; /* the disk is the record */
    record(OP_SYNC, ((shim *)f)->file, 0, NULL, 0);
    return SQLITE_OK;
}
static int x_size(sqlite3_file *f, sqlite3_int64 *size) {
    return REAL(f)->pMethods->xFileSize(REAL(f), size);
}
static int x_lock(sqlite3_file *f, int level) {
    return REAL(f)->pMethods->xLock(REAL(f), level);
}
static int x_unlock(sqlite3_file *f, int level) {
    return REAL(f)->pMethods->xUnlock(REAL(f), level);
}
static int x_reserved(sqlite3_file *f, int *out) {
    return REAL(f)->pMethods->xCheckReservedLock(REAL(f), out);
}
static int x_control(sqlite3_file *f, int op_code, void *arg) {
    return REAL(f)->pMethods->xFileControl(REAL(f), op_code, arg);
}
static int x_sector(sqlite3_file *f) {
    return REAL(f)->pMethods->xSectorSize(REAL(f));
}
static int x_traits(sqlite3_file *f) {
    return REAL(f)->pMethods->xDeviceCharacteristics(REAL(f));
}
static int x_shm_map(sqlite3_file *f, int page, int n, int extend, void volatile **out) {
    return REAL(f)->pMethods->xShmMap(REAL(f), page, n, extend, out);
}
static int x_shm_lock(sqlite3_file *f, int offset, int n, int flags) {
    return REAL(f)->pMethods->xShmLock(REAL(f), offset, n, flags);
}
static void x_shm_barrier(sqlite3_file *f) {
    REAL(f)->pMethods->xShmBarrier(REAL(f));
}
static int x_shm_unmap(sqlite3_file *f, int remove_it) {
    return REAL(f)->pMethods->xShmUnmap(REAL(f), remove_it);
}

static const sqlite3_io_methods methods = {.iVersion = 2,
                                           .xClose = x_close,
                                           .xRead = x_read,
                                           .xWrite = x_write,
                                           .xTruncate = x_truncate,
                                           .xSync = x_sync,
                                           .xFileSize = x_size,
                                           .xLock = x_lock,
                                           .xUnlock = x_unlock,
                                           .xCheckReservedLock = x_reserved,
                                           .xFileControl = x_control,
                                           .xSectorSize = x_sector,
                                           .xDeviceCharacteristics = x_traits,
                                           .xShmMap = x_shm_map,
                                           .xShmLock = x_shm_lock,
                                           .xShmBarrier = x_shm_barrier,
                                           .xShmUnmap = x_shm_unmap};
static sqlite3_vfs *real_vfs, shim_vfs;

static uint8_t *read_file(const char *path, size_t *n) {
    struct stat info;
    FILE *file = fopen(path, "r");
    if (!file || fstat(fileno(file), &info))
        fail_msg("%s", path);
    uint8_t *bytes = malloc((size_t)info.st_size + 1);
    *n = fread(bytes, 1, (size_t)info.st_size, file);
    fclose(file);
    return bytes;
}

static bool ends_with(const char *text, const char *end) {
    size_t n = strlen(text), m = strlen(end);
    return n >= m && !strcmp(text + n - m, end);
}

static int x_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *out_flags) {
    (void)vfs;
    shim *s = (shim *)file;
    s->real = (sqlite3_file *)(s + 1);
    s->file = !name ? -1 : ends_with(name, "/run.db") ? DATABASE : ends_with(name, "/run.db-wal") ? LOG : -1;
    if (s->file == DATABASE && !base)
        base = read_file("run.db", &base_bytes);
    int code = real_vfs->xOpen(real_vfs, name, s->real, flags, out_flags);
    s->head.pMethods = code == SQLITE_OK ? &methods : NULL;
    return code;
}

static void write_answers(void) {
    lb_journal *journal;
    lb_error error;
    real_vfs = sqlite3_vfs_find(NULL);
    shim_vfs = *real_vfs;
    shim_vfs.zName = "recording";
    shim_vfs.szOsFile = (int)sizeof(shim) + real_vfs->szOsFile;
    shim_vfs.xOpen = x_open;
    assert_int_equal(sqlite3_vfs_register(&shim_vfs, 1), SQLITE_OK);
    if (lb_journal_create("run.db", NULL, NULL, 0, &journal, &error) != LB_STATUS_OK)
        fail_msg("%s", error.message);
    char *prompt = malloc(6001);
    memset(prompt, 'x', 6000);
    prompt[6000] = 0;
    for (int i = 0; i < N_ANSWERS; i++) {
        char id[16];
        snprintf(id, sizeof id, "q%d", i);
        snprintf(prompt, 16, "%d", i);
        prompt[strlen(prompt)] = 'x';
        /* the videos' fingerprints are commits too */
        lb_fingerprint f = {.n_bytes = i};
        if (i % 3 == 0 && lb_journal_put_fingerprint(journal, "video", id, &f, &error) != LB_STATUS_OK)
            fail_msg("%s", error.message);
        lb_journal_record r = {
            .index = i, .id = id, .video_path = "v", .letter = i % 4, .text = "A", .prompt = prompt, .n_choices = 4};
        if (lb_journal_append(journal, &r, &error) != LB_STATUS_OK)
            fail_msg("%s", error.message);
        reported[i] = n_ops;
    }
    free(prompt);
    lb_journal_close(journal); /* what is moved into the file at the end is recorded too */
    reported[N_ANSWERS] = SIZE_MAX;
    sqlite3_vfs_unregister(&shim_vfs);
    assert_int_equal(sqlite3_vfs_register(real_vfs, 1), SQLITE_OK);
}

typedef struct content {
    uint8_t *bytes;
    size_t n, capacity;
} content;

static void reserve(content *c, size_t n) {
    if (n > c->capacity) {
        c->bytes = realloc(c->bytes, 2 * n);
        c->capacity = 2 * n;
    }
    if (n > c->n) {
        memset(c->bytes + c->n, 0, n - c->n);
        c->n = n;
    }
}

static uint64_t chance_state = 88172645463325252u;
static uint64_t chance(void) {
    chance_state ^= chance_state << 13;
    chance_state ^= chance_state >> 7;
    return chance_state ^= chance_state << 17;
}

static void apply(content *c, const op *o, bool in_doubt) {
    if (o->kind == OP_CUT && (!in_doubt || chance() & 1))
        c->n = (size_t)o->at < c->n ? (size_t)o->at : c->n;
    if (o->kind != OP_WRITE)
        return;
    for (size_t from = 0, n; from < o->n; from += n) {
        const size_t at = (size_t)o->at + from;
        n = SECTOR - at % SECTOR;
        n = n < o->n - from ? n : o->n - from;
        if (in_doubt && chance() & 1)
            continue;
        reserve(c, at + n);
        memcpy(c->bytes + at, o->bytes + from, n);
        if (in_doubt && o->file == LOG && chance() % 8 == 0)
            for (size_t i = 0; i < n; i++)
                c->bytes[at + i] = (uint8_t)chance();
    }
}

/* What lies on the disk after a cut before op `end`. */
static void cut_power(size_t end, content files[N_FILES]) {
    size_t synced[N_FILES] = {0};
    for (size_t i = 0; i < end; i++)
        if (ops[i].kind == OP_SYNC)
            synced[ops[i].file] = i;
    for (int f = 0; f < N_FILES; f++)
        files[f].n = 0;
    reserve(&files[DATABASE], base_bytes);
    memcpy(files[DATABASE].bytes, base, base_bytes);
    for (size_t i = 0; i < end; i++)
        apply(&files[ops[i].file], &ops[i], i > synced[ops[i].file]);
}

static void write_content(const char *path, const content *c) {
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(c->bytes, 1, c->n, file), c->n);
    fclose(file);
}

static int count_answers(const char *path) {
    sqlite3 *db;
    sqlite3_stmt *s;
    int n = 0;
    assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(db, "SELECT question, id, prompt FROM answer ORDER BY question", -1, &s, NULL),
                     SQLITE_OK);
    while (sqlite3_step(s) == SQLITE_ROW) {
        char id[16];
        snprintf(id, sizeof id, "q%d", n);
        assert_int_equal(sqlite3_column_int(s, 0), n);
        assert_string_equal(sqlite3_column_text(s, 1), id);
        assert_int_equal(atoi((const char *)sqlite3_column_text(s, 2)), n);
        assert_true(strlen((const char *)sqlite3_column_text(s, 2)) == 6000);
        n++;
    }
    sqlite3_finalize(s);
    sqlite3_close(db);
    return n;
}

static void test_power_cuts(void **state) {
    (void)state;
    char folder[] = "/tmp/lowbeam-power-XXXXXX";
    assert_non_null(mkdtemp(folder));
    assert_int_equal(chdir(folder), 0);
    write_answers();
    size_t n_syncs[N_FILES] = {0};
    for (size_t i = 0; i < n_ops; i++)
        if (ops[i].kind == OP_SYNC)
            n_syncs[ops[i].file]++;
    assert_true(n_syncs[LOG] > N_ANSWERS); /* each answer by itself */
    assert_true(n_syncs[DATABASE] >= 3);   /* and the log was moved into the file, and begun anew, on the way */
    const char *wanted = getenv("LOWBEAM_POWER_CUTS");
    const int n_cuts = wanted ? atoi(wanted) : 300;
    content files[N_FILES] = {{0}};
    int n_lost = 0, n_unreported = 0, n_moving = 0;
    for (int round = 0; round < n_cuts; round++) {
        size_t end;
        /* a third of them while the log is moved into the file, which is a small part of the time */
        do
            end = chance() % (n_ops + 1);
        while (round % 3 == 0 && (end == n_ops || ops[end].file != DATABASE));
        n_moving += round % 3 == 0;
        int n_reported = 0;
        while (reported[n_reported] <= end)
            n_reported++;
        cut_power(end, files);
        unlink("cut.db-shm");
        write_content("cut.db", &files[DATABASE]);
        write_content("cut.db-wal", &files[LOG]);
        lb_journal *journal;
        lb_error error;
        if (lb_journal_open("cut.db", &journal, &error) != LB_STATUS_OK)
            fail_msg("cut before step %zu of %zu, %d answers reported: %s", end, n_ops, n_reported, error.message);
        lb_journal_close(journal);
        int n = count_answers("cut.db");
        if (n < n_reported)
            print_error("cut before step %zu of %zu: %d answers reported, %d there\n", end, n_ops, n_reported, n);
        n_lost += n < n_reported ? n_reported - n : 0;
        n_unreported += n > n_reported;
    }
    printf(
        "%d power cuts (%d while the log was moved into the file), %d answers lost; %d times one more was there than "
        "reported\n",
        n_cuts, n_moving, n_lost, n_unreported);
    assert_int_equal(n_lost, 0);
    for (int f = 0; f < N_FILES; f++)
        free(files[f].bytes);
    for (size_t i = 0; i < n_ops; i++)
        free(ops[i].bytes);
    free(ops);
    free(base);
    assert_int_equal(chdir("/"), 0);
    char command[64];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    assert_int_equal(system(command), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_power_cuts)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
