/* The journal: what is stored, what survives, what a failure leaves behind; the CSV byte for byte. */
#include "base/time.h"
#include "journal/journal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

/* Each test in a new folder that it is in, removed after it. */
static int enter(void **state) {
    char folder[] = "/tmp/lowbeam-journal-XXXXXX";
    if (!mkdtemp(folder) || chdir(folder))
        return -1;
    *state = strdup(folder);
    return 0;
}

static int leave(void **state) {
    char command[256];
    snprintf(command, sizeof command, "rm -rf '%s'", (char *)*state);
    int status = chdir("/") || system(command);
    free(*state);
    return status;
}

static int count_files(void) {
    int n = 0;
    DIR *folder = opendir(".");
    for (struct dirent *entry; (entry = readdir(folder));)
        n += strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..");
    closedir(folder);
    return n;
}

static char *read_all(const char *path) {
    char *text = calloc(1, 1 << 16);
    FILE *file = fopen(path, "r");
    if (!file)
        fail_msg("%s: %s", path, strerror(errno));
    assert_true(fread(text, 1, (1 << 16) - 1, file) > 0);
    fclose(file);
    return text;
}

static void assert_file(const char *path, const char *expected) {
    char *text = read_all(path);
    assert_string_equal(text, expected);
    free(text);
}

/* One value out of the file, by a connection of its own. */
static char *query(const char *path, const char *sql) {
    sqlite3 *db;
    sqlite3_stmt *statement;
    if (sqlite3_open_v2(path, &db, SQLITE_OPEN_READONLY, NULL) != SQLITE_OK ||
        sqlite3_prepare_v2(db, sql, -1, &statement, NULL) != SQLITE_OK || sqlite3_step(statement) != SQLITE_ROW)
        fail_msg("%s: %s: %s", path, sql, sqlite3_errmsg(db));
    const char *text = (const char *)sqlite3_column_text(statement, 0);
    char *copy = strdup(text ? text : "NULL");
    sqlite3_finalize(statement);
    sqlite3_close(db);
    return copy;
}

static void assert_query(const char *path, const char *sql, const char *expected) {
    char *found = query(path, sql);
    assert_string_equal(found, expected);
    free(found);
}

static lb_journal *create(const char *path) {
    static const char *const settings[] = {"model", "x.gguf", "num_frames", "8", NULL};
    lb_journal *journal;
    lb_error error;
    if (lb_journal_create(path, settings, NULL, 0, &journal, &error) != LB_STATUS_OK)
        fail_msg("%s", error.message);
    return journal;
}

static lb_journal_record record_of(int index, const char *id, int letter, const char *text) {
    return (lb_journal_record){.index = index,
                               .id = id,
                               .video_path = "v/1.mp4",
                               .letter = letter,
                               .text = text,
                               .prompt = "Frame1: <image>\nq",
                               .n_choices = 4,
                               .device_bytes = -1,
                               .truth = -1};
}

static void append(lb_journal *journal, lb_journal_record record) {
    lb_error error;
    if (lb_journal_append(journal, &record, &error) != LB_STATUS_OK)
        fail_msg("%s", error.message);
}

static void write_csv(lb_journal *journal, const char *path, const char *columns) {
    lb_error error;
    if (lb_journal_write_csv(journal, path, columns, &error) != LB_STATUS_OK)
        fail_msg("%s", error.message);
}

static void test_store(void **state) {
    (void)state;
    lb_journal *journal = create("run.db");
    const float logits[4] = {1.5f, -0.1f, INFINITY, 3e-20f}, probabilities[4] = {0.25f, 0.25f, 0.5f, 0};
    lb_journal_record record = record_of(7, "q7", 2, "C. Có");
    record.letter_logits = logits;
    record.letter_probabilities = probabilities;
    record.n_prompt_tokens = 2100;
    record.n_new_tokens = 3;
    record.decode_s = 0.5;
    record.detect_s = 0.25;
    record.generate_s = 0.125;
    record.device_bytes = (int64_t)17 << 30;
    record.truth = 1;
    append(journal, record);
    /* while the run goes on, another program can read what there is */
    assert_query("run.db", "SELECT id || answer || raw_response || truth FROM answer", "q7CC. CóB");
    record = record_of(8, "q8", 0, "clip \xff.mp4: broken");
    record.error = "clip \xff.mp4: broken";
    record.fallback = true;
    append(journal, record);
    lb_journal_close(journal);
    assert_int_equal(count_files(), 1); /* no log is left */
    assert_query("run.db", "PRAGMA journal_mode", "wal");
    assert_query("run.db", "PRAGMA user_version", "4");
    assert_query("run.db", "SELECT group_concat(name || '=' || value) FROM run", "model=x.gguf,num_frames=8");
    assert_query("run.db", "SELECT letter_logits FROM answer", "[1.5,-0.100000001,null,2.9999999e-20]");
    assert_query("run.db", "SELECT json_extract(letter_probabilities, '$[2]') FROM answer", "0.5");
    assert_query(
        "run.db",
        "SELECT n_prompt_tokens || '/' || n_new_tokens || '/' || decode_s || '/' || detect_s || '/' || generate_s || "
        "'/' || device_bytes || '/' || n_choices FROM answer",
        "2100/3/0.5/0.25/0.125/18253611008/4");
    assert_query("run.db", "SELECT error || fallback FROM answer WHERE question = 8", "clip \ufffd.mp4: broken1");
    assert_query("run.db", "SELECT truth FROM answer WHERE question = 8", "NULL");
    assert_query("run.db", "SELECT device_bytes FROM answer WHERE question = 8", "NULL");
}

static void test_counts(void **state) {
    (void)state;
    lb_journal *journal = create("run.db");
    lb_journal_counts counts;
    assert_int_equal(lb_journal_count(journal, &counts, NULL), LB_STATUS_OK);
    assert_int_equal(counts.n_records, 0);
    for (int i = 0; i < 10; i++) {
        lb_journal_record record = record_of(i, "q", i % 4, "x");
        record.truth = i < 8 ? 1 : -1; /* right: 1 and 5; and 9, but its truth is not known */
        record.fallback = i < 3;
        record.error = i < 2 ? "e" : NULL;
        append(journal, record);
    }
    assert_int_equal(lb_journal_count(journal, &counts, NULL), LB_STATUS_OK);
    assert_int_equal(counts.n_records, 10);
    assert_int_equal(counts.n_fallbacks, 3);
    assert_int_equal(counts.n_errors, 2);
    assert_int_equal(counts.n_truths, 8);
    assert_int_equal(counts.n_right, 2);
    lb_journal_record record = record_of(0, "q", 1, "again"); /* replaces a wrong one */
    record.truth = 1;
    append(journal, record);
    assert_int_equal(lb_journal_count(journal, &counts, NULL), LB_STATUS_OK);
    assert_int_equal(counts.n_records, 10);
    assert_int_equal(counts.n_right, 3);
    assert_int_equal(counts.n_errors, 1);
    lb_journal_close(journal);
}

static void test_csv(void **state) {
    (void)state;
    lb_journal *journal = create("run.db");
    append(journal, record_of(2, "q,2", 1, "B"));
    append(journal, record_of(0, "q0", 0, "He said \"A\"\r\nĐúng"));
    append(journal, record_of(10, "q10", 3, " D"));
    append(journal, record_of(3, "q3", 7, ""));
    write_csv(journal, "run.csv", NULL);
    assert_file("run.csv", "id,answer,raw_response,prompt\r\n"
                           "q0,A,\"He said \"\"A\"\"\r\nĐúng\",\"Frame1: <image>\nq\"\r\n"
                           "\"q,2\",B,B,\"Frame1: <image>\nq\"\r\n"
                           "q3,H,\"\",\"Frame1: <image>\nq\"\r\n"
                           "q10,D,\" D\",\"Frame1: <image>\nq\"\r\n");
    write_csv(journal, "run.csv", "id,answer"); /* over the one that is there */
    assert_file("run.csv", "id,answer\r\nq0,A\r\n\"q,2\",B\r\nq3,H\r\nq10,D\r\n");
    write_csv(journal, "run.csv", " answer , id ");
    assert_file("run.csv", "answer,id\r\nA,q0\r\nB,\"q,2\"\r\nH,q3\r\nD,q10\r\n");
    struct stat info;
    mode_t mask = umask(0);
    umask(mask);
    assert_int_equal(stat("run.csv", &info), 0);
    assert_int_equal(info.st_mode & 0777, 0666 & ~mask);
    lb_journal_close(journal);
    assert_int_equal(count_files(), 2);
}

static void test_columns(void **state) {
    (void)state;
    lb_error error;
    assert_int_equal(lb_journal_check_columns(NULL, &error), LB_STATUS_OK);
    assert_int_equal(lb_journal_check_columns("prompt", &error), LB_STATUS_OK);
    assert_int_equal(lb_journal_check_columns("id,answr", &error), LB_STATUS_INVALID_ARGUMENT);
    assert_non_null(strstr(error.message, "columns \"id,answr\": 'answr' is none of id,answer,raw_response,prompt,"));
    assert_int_equal(lb_journal_check_columns("id,id", &error), LB_STATUS_INVALID_ARGUMENT);
    assert_string_equal(error.message, "columns \"id,id\": id is there twice");
    assert_int_equal(lb_journal_check_columns("", &error), LB_STATUS_INVALID_ARGUMENT);
    assert_int_equal(lb_journal_check_columns("id,", &error), LB_STATUS_INVALID_ARGUMENT);
    assert_int_equal(lb_journal_check_columns(",id", &error), LB_STATUS_INVALID_ARGUMENT);
}

static void test_names(void **state) {
    (void)state;
    static const char *const names[] = {
        ":memory:", "file:x.db?mode=memory", "a%20b?c#d.db", "Đường phố.db", "'quoted\"", "-dash", "line\nfeed.db"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        lb_journal *journal = create(names[i]);
        append(journal, record_of(0, "q", 0, "A"));
        lb_journal_close(journal);
        struct stat info;
        if (stat(names[i], &info) || info.st_size < 1000)
            fail_msg("no file %s", names[i]);
    }
    assert_int_equal(count_files(), sizeof names / sizeof *names);
    lb_journal *journal = create("run.db");
    char longest[256];
    memset(longest, 'x', 255); /* as long as a name can be */
    longest[255] = 0;
    write_csv(journal, longest, NULL);
    assert_file(longest, "id,answer,raw_response,prompt\r\n");
    /* a link stays a link */
    assert_int_equal(mkdir("folder", 0777), 0);
    write_csv(journal, "folder/real.csv", NULL);
    assert_int_equal(symlink("folder/real.csv", "link.csv"), 0);
    append(journal, record_of(0, "q", 0, "A"));
    write_csv(journal, "link.csv", "id");
    assert_file("folder/real.csv", "id\r\nq\r\n");
    struct stat info;
    assert_int_equal(lstat("link.csv", &info), 0);
    assert_true(S_ISLNK(info.st_mode));
    lb_journal_close(journal);
}

static void assert_create_fails(const char *path, lb_status status, const char *message) {
    lb_journal *journal = (lb_journal *)1;
    lb_error error;
    assert_int_equal(lb_journal_create(path, NULL, NULL, 0, &journal, &error), status);
    assert_null(journal);
    assert_string_equal(error.message, message);
}

static void assert_csv_fails(lb_journal *journal, const char *path, lb_status status, const char *message) {
    lb_error error;
    assert_int_equal(lb_journal_write_csv(journal, path, NULL, &error), status);
    assert_string_equal(error.message, message);
}

static void test_refused(void **state) {
    (void)state;
    FILE *file = fopen("there", "w");
    fputs("mine", file);
    fclose(file);
    assert_create_fails(
        "there", LB_STATUS_REFUSED,
        "there: is there already, the journal of another run; go on with that one (--resume), remove it, or "
        "name another --out");
    assert_file("there", "mine");
    assert_create_fails("", LB_STATUS_INVALID_ARGUMENT, "the journal's name is empty");
    assert_create_fails(
        "no/run.db", LB_STATUS_NOT_FOUND,
        "no/run.db: cannot be written: No such file or directory; make its folder first, or name another "
        "one with --out");
    assert_create_fails("there/run.db", LB_STATUS_NOT_FOUND,
                        "there/run.db: cannot be written: Not a directory; make its folder first, or name another one "
                        "with --out");
    const char *const twice[] = {"a", "1", "a", "2", NULL}, *const half[] = {"a", NULL};
    lb_journal *journal;
    lb_error error;
    assert_int_equal(lb_journal_create("run.db", twice, NULL, 0, &journal, &error), LB_STATUS_INVALID_ARGUMENT);
    assert_string_equal(error.message, "run.db: setting \"a\" twice or without a value");
    assert_int_equal(lb_journal_create("run.db", half, NULL, 0, &journal, &error), LB_STATUS_INVALID_ARGUMENT);
    assert_int_equal(count_files(), 1); /* a failed creation leaves nothing */

    journal = create("run.db");
    assert_csv_fails(journal, "no/run.csv", LB_STATUS_NOT_FOUND,
                     "no/run.csv: cannot be written: No such file or directory; make its folder first, or name another "
                     "one with --out");
    assert_csv_fails(journal, ".", LB_STATUS_REFUSED, ".: is a folder; name a file");
    assert_csv_fails(journal, "/dev/null", LB_STATUS_REFUSED, "/dev/null: is no regular file; name a file");
    assert_csv_fails(journal, "", LB_STATUS_INVALID_ARGUMENT, "the name of the file to write is empty");
    lb_journal_record record = record_of(0, "q", 8, "I");
    assert_int_equal(lb_journal_append(journal, &record, &error), LB_STATUS_INVALID_ARGUMENT);
    record = record_of(0, "q", 0, "A");
    record.n_choices = 9;
    assert_int_equal(lb_journal_append(journal, &record, &error), LB_STATUS_INVALID_ARGUMENT);
    lb_journal_close(journal);
    lb_journal_close(NULL);
}

/* A journal that was removed by hand, its log left: the new one takes nothing from it. */
static void test_stale_log(void **state) {
    (void)state;
    pid_t child = fork();
    if (!child) {
        lb_journal *journal = create("run.db");
        append(journal, record_of(5, "old", 0, "A"));
        kill(getpid(), SIGKILL);
    }
    waitpid(child, NULL, 0);
    assert_int_equal(unlink("run.db"), 0);
    assert_int_equal(access("run.db-wal", F_OK), 0);
    lb_journal *journal = create("run.db");
    append(journal, record_of(0, "new", 0, "A"));
    write_csv(journal, "run.csv", "id");
    assert_file("run.csv", "id\r\nnew\r\n");
    lb_journal_close(journal);
}

/* A process that is killed, at any moment, loses no answer that append had taken. */
static void test_killed(void **state) {
    (void)state;
    for (int round = 0; round < 5; round++) {
        char path[32];
        int told[2], n = -1;
        snprintf(path, sizeof path, "run%d.db", round);
        assert_int_equal(pipe(told), 0);
        pid_t child = fork();
        if (!child) {
            lb_journal *journal = create(path);
            for (int i = 0;; i++) {
                append(journal, record_of(i, "q", 0, "A"));
                if (write(told[1], &i, sizeof i) != sizeof i)
                    _exit(1);
            }
        }
        close(told[1]);
        for (int i = 0; i < 3 + 7 * round; i++)
            assert_int_equal(read(told[0], &n, sizeof n), sizeof n);
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        while (read(told[0], &n, sizeof n) == sizeof n)
            ;
        close(told[0]);
        char sql[64];
        snprintf(sql, sizeof sql, "SELECT count(*) >= %d FROM answer", n + 1);
        assert_query(path, sql, "1");
    }
}

/* A full disk, played by a limit on the size of files. In a child, since the limit stays. */
static int with_small_files(int (*body)(void)) {
    fflush(NULL);
    pid_t child = fork();
    if (!child) {
        signal(SIGXFSZ, SIG_IGN);
        _exit(body());
    }
    int status;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void limit_files(rlim_t bytes) {
    struct rlimit limit = {.rlim_cur = bytes, .rlim_max = RLIM_INFINITY};
    setrlimit(RLIMIT_FSIZE, &limit);
}

static int says_full(const lb_error *error) {
    return !!strstr(error->message, "; free some space, or name another folder with --out");
}

/* The exit status is the number of what went wrong, so that a failure names it. */
static int fill_disk(void) {
    lb_journal *journal = create("run.db");
    lb_error error = {0};
    static char text[20000];
    memset(text, 'x', sizeof text - 1);
    limit_files(300000);
    int i = 0;
    while (i < 100) {
        lb_journal_record record = record_of(i, "q", 0, text);
        if (lb_journal_append(journal, &record, &error) != LB_STATUS_OK)
            break;
        i++;
    }
    if (i < 5 || i == 100)
        return 1;
    if (error.status != LB_STATUS_IO || strncmp(error.message, "run.db: ", 8) || !says_full(&error)) {
        fprintf(stderr, "%s\n", error.message);
        return 2;
    }
    lb_journal_counts counts;
    if (lb_journal_count(journal, &counts, &error) != LB_STATUS_OK || counts.n_records != i)
        return 3;
    /* the CSV: the old one stays, no other file comes */
    limit_files(50000);
    int n_files = count_files();
    FILE *file = fopen("run.csv", "w");
    fputs("old", file);
    fclose(file);
    if (lb_journal_write_csv(journal, "run.csv", NULL, &error) != LB_STATUS_IO || !says_full(&error) ||
        strncmp(error.message, "run.csv: ", 9)) {
        fprintf(stderr, "%s\n", error.message);
        return 4;
    }
    if (count_files() != n_files + 1)
        return 5;
    assert_file("run.csv", "old");
    /* a file that fails at its very end */
    limit_files(10);
    if (lb_journal_write_csv(journal, "run.csv", "id", &error) != LB_STATUS_IO || count_files() != n_files + 1)
        return 6;
    /* space again: the run can go on */
    limit_files(RLIM_INFINITY);
    lb_journal_record record = record_of(i, "q", 0, text);
    if (lb_journal_append(journal, &record, &error) != LB_STATUS_OK) {
        fprintf(stderr, "%s\n", error.message);
        return 7;
    }
    if (lb_journal_count(journal, &counts, &error) != LB_STATUS_OK || counts.n_records != i + 1)
        return 8;
    lb_journal_close(journal);
    return 0;
}

static int create_on_full_disk(void) {
    lb_journal *journal;
    lb_error error = {0};
    limit_files(1000);
    if (lb_journal_create("run.db", NULL, NULL, 0, &journal, &error) != LB_STATUS_IO || !says_full(&error)) {
        fprintf(stderr, "%s\n", error.message);
        return 1;
    }
    return count_files() ? 2 : 0;
}

static void test_full_disk(void **state) {
    (void)state;
    assert_int_equal(with_small_files(create_on_full_disk), 0);
    assert_int_equal(with_small_files(fill_disk), 0);
}

/* Root may write everywhere: it becomes somebody else for a while. */
static int write_read_only(void) {
    lb_journal *journal = create("run.db"), *other;
    lb_error error = {0};
    if (chmod(".", 0555) || (!geteuid() && seteuid(65534)))
        return 1;
    static const char way_out[] = ": cannot be written: Permission denied; name a folder that can be written to with "
                                  "--out";
    if (lb_journal_create("other.db", NULL, NULL, 0, &other, &error) != LB_STATUS_IO ||
        strcmp(error.message + 8, way_out))
        return 2;
    if (lb_journal_write_csv(journal, "run.csv", NULL, &error) != LB_STATUS_IO || strcmp(error.message + 7, way_out))
        return 3;
    return 0;
}

static void test_read_only(void **state) {
    (void)state;
    int status = with_small_files(write_read_only);
    chmod(".", 0755);
    assert_int_equal(status, 0);
}

static void test_time(void **state) {
    (void)state;
    lb_journal *journal = create("run.db");
    enum { N = 200 };
    double start = lb_now_s();
    for (int i = 0; i < N; i++)
        append(journal, record_of(i, "q", 0, "A"));
    print_message("%.2f ms for each durable answer\n", 1e3 * (lb_now_s() - start) / N);
    lb_journal_close(journal);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, enter, leave)
    const struct CMUnitTest tests[] = {
        TEST(test_store),     TEST(test_counts),    TEST(test_csv),       TEST(test_columns),
        TEST(test_names),     TEST(test_refused),   TEST(test_stale_log), TEST(test_killed),
        TEST(test_full_disk), TEST(test_read_only), TEST(test_time),
    };
    return cmocka_run_group_tests_name("journal", tests, NULL, NULL);
}
