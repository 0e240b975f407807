/* A journal that is opened again: what it still holds, whose it is, and what is refused. Fingerprints, and JSONL. */
#include "journal/journal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

static int enter(void **state) {
    char folder[] = "/tmp/lowbeam-journal-XXXXXX";
    if (!mkdtemp(folder) || chdir(folder))
        return -1;
    setenv("LOWBEAM_CACHE", "cache", 1);
    *state = strdup(folder);
    return 0;
}

static int leave(void **state) {
    char command[256];
    snprintf(command, sizeof command, "chmod -R u+w '%s'; rm -rf '%s'", (char *)*state, (char *)*state);
    int status = chdir("/") || system(command);
    free(*state);
    return status;
}

static lb_journal *create(const char *path) {
    static const char *const settings[] = {"model", "x.gguf", "num_frames", "8", NULL};
    lb_journal *journal;
    lb_error error;
    if (lb_journal_create(path, settings, NULL, 0, &journal, &error) != LB_STATUS_OK)
        fail_msg("%s", error.message);
    return journal;
}

static lb_journal *open_journal(const char *path) {
    lb_journal *journal;
    lb_error error;
    if (lb_journal_open(path, &journal, &error) != LB_STATUS_OK)
        fail_msg("%s", error.message);
    return journal;
}

static void append(lb_journal *journal, int index, const char *problem) {
    char id[32];
    snprintf(id, sizeof id, "q%d", index);
    lb_error error;
    lb_journal_record record = {.index = index,
                                .id = id,
                                .video_path = "v",
                                .letter = index % 4,
                                .text = "A",
                                .prompt = "p",
                                .error = problem,
                                .fallback = problem != NULL,
                                .n_choices = 4,
                                .device_bytes = -1,
                                .truth = -1};
    if (lb_journal_append(journal, &record, &error) != LB_STATUS_OK)
        fail_msg("%s", error.message);
}

static void assert_open_fails(const char *path, lb_status status, const char *words) {
    lb_journal *journal = (lb_journal *)1;
    lb_error error;
    assert_int_equal(lb_journal_open(path, &journal, &error), status);
    assert_null(journal);
    if (!strstr(error.message, words) || !strstr(error.message, path) || strchr(error.message, '\n'))
        fail_msg("\"%s\" has not \"%s\"", error.message, words);
}

static lb_status count(const lb_journal_state *state, void *user, lb_error *error) {
    int *n = user; /* [0] all, [1] failed, [2] sum of letters */
    (void)error;
    assert_int_equal(state->index, n[0]);
    n[0]++;
    n[1] += state->failed;
    n[2] += state->letter;
    return LB_STATUS_OK;
}

static void assert_holds(const char *path, int n_all, int n_failed) {
    lb_journal *journal = open_journal(path);
    int n[3] = {0};
    lb_error error;
    assert_int_equal(lb_journal_each(journal, count, n, &error), LB_STATUS_OK);
    assert_int_equal(n[0], n_all);
    assert_int_equal(n[1], n_failed);
    lb_journal_close(journal);
}

static void test_goes_on(void **state) {
    (void)state;
    lb_journal *journal = create("run.db");
    append(journal, 0, NULL);
    append(journal, 1, "broken");
    lb_journal_close(journal);
    assert_holds("run.db", 2, 1);
    journal = open_journal("run.db");
    append(journal, 1, NULL);
    append(journal, 2, NULL);
    char *value;
    lb_error error;
    assert_int_equal(lb_journal_setting(journal, "num_frames", &value, &error), LB_STATUS_OK);
    assert_string_equal(value, "8");
    free(value);
    assert_int_equal(lb_journal_setting(journal, "none", &value, &error), LB_STATUS_OK);
    assert_null(value);
    lb_journal_close(journal);
    assert_holds("run.db", 3, 0);
}

/* The lock names its holder, outlives SQLite's own, and ends with the process. */
static void test_one_process(void **state) {
    (void)state;
    int pipe_to[2], pipe_from[2];
    assert_int_equal(pipe(pipe_to) | pipe(pipe_from), 0);
    pid_t child = fork();
    if (!child) {
        lb_journal *journal = create("run.db");
        for (int i = 0; i < 3; i++)
            append(journal, i, NULL);
        lb_journal_close(journal);
        journal = open_journal("run.db"); /* a second time: all locks of the first are gone by now */
        append(journal, 3, NULL);
        char byte = 0;
        if (write(pipe_from[1], &byte, 1) != 1 || read(pipe_to[0], &byte, 1) != 1)
            _exit(1);
        kill(getpid(), SIGKILL);
    }
    char byte, expected[64];
    assert_int_equal(read(pipe_from[0], &byte, 1), 1);
    assert_int_equal(lb_journal_owner("run.db"), child);
    snprintf(expected, sizeof expected, "run.db: process %d is writing it", (int)child);
    assert_open_fails("run.db", LB_STATUS_REFUSED, expected);
    lb_journal *journal;
    lb_error error;
    assert_int_equal(lb_journal_create("run.db", NULL, NULL, 0, &journal, &error), LB_STATUS_REFUSED);
    snprintf(expected, sizeof expected, "process %d is writing it", (int)child);
    assert_non_null(strstr(error.message, expected));
    /* reading alone is allowed meanwhile */
    assert_int_equal(lb_journal_open_read_only("run.db", &journal, &error), LB_STATUS_OK);
    lb_journal_counts counts;
    assert_int_equal(lb_journal_count(journal, &counts, &error), LB_STATUS_OK);
    assert_int_equal(counts.n_records, 4);
    lb_journal_close(journal);
    assert_int_equal(lb_journal_owner("run.db"), child);
    assert_int_equal(write(pipe_to[1], &byte, 1), 1);
    waitpid(child, NULL, 0);
    assert_int_equal(lb_journal_owner("run.db"), 0);
    assert_holds("run.db", 4, 0);
    assert_int_equal(lb_journal_owner("none.db"), 0);
    for (int i = 0; i < 2; i++)
        close(pipe_to[i]), close(pipe_from[i]);
}

static void write_file(const char *path, const void *bytes, size_t n) {
    FILE *file = fopen(path, "w");
    assert_int_equal(fwrite(bytes, 1, n, file), n);
    assert_int_equal(fclose(file), 0);
}

static void test_no_journal(void **state) {
    (void)state;
    assert_open_fails("none.db", LB_STATUS_NOT_FOUND, "No such file");
    write_file("empty.db", "", 0);
    assert_open_fails("empty.db", LB_STATUS_FORMAT, "is empty: it was cut short");
    write_file("text.db", "a,b\n1,2\n", 8);
    assert_open_fails("text.db", LB_STATUS_FORMAT, "is no journal");
    assert_int_equal(mkdir("folder.db", 0777), 0);
    assert_open_fails("folder.db", LB_STATUS_REFUSED, "no regular file");
    assert_int_equal(mkfifo("fifo.db", 0666), 0);
    assert_open_fails("fifo.db", LB_STATUS_REFUSED, "no regular file");
    sqlite3 *db;
    sqlite3_open("other.db", &db);
    sqlite3_exec(db, "CREATE TABLE answer (x); PRAGMA user_version = 4", NULL, NULL, NULL);
    sqlite3_close(db);
    assert_open_fails("other.db", LB_STATUS_FORMAT, "is no journal");
    lb_journal_close(create("new.db"));
    sqlite3_open("new.db", &db);
    sqlite3_exec(db, "PRAGMA user_version = 99", NULL, NULL, NULL);
    sqlite3_close(db);
    assert_open_fails("new.db", LB_STATUS_FORMAT, "a newer lowbeam (version 99");
    if (geteuid() != 0) {
        lb_journal_close(create("locked.db"));
        assert_int_equal(chmod("locked.db", 0444), 0);
        assert_open_fails("locked.db", LB_STATUS_IO, "cannot be written");
    }
}

/* A file that lost its end, anywhere: refused in one line, or all that it still holds is right. */
static void test_cut_short(void **state) {
    (void)state;
    lb_journal *journal = create("run.db");
    for (int i = 0; i < 300; i++)
        append(journal, i, NULL);
    lb_journal_close(journal);
    struct stat info;
    assert_int_equal(stat("run.db", &info), 0);
    char *bytes = malloc((size_t)info.st_size);
    FILE *file = fopen("run.db", "r");
    assert_int_equal(fread(bytes, 1, (size_t)info.st_size, file), info.st_size);
    fclose(file);
    int n_refused = 0, n_cuts = 0;
    for (off_t at = 0; at < info.st_size; at += at % 4096 == 0 ? 1 : at % 4096 == 1 ? 1722 : 2373, n_cuts++) {
        lb_error error;
        write_file("cut.db", bytes, (size_t)at);
        lb_status status = lb_journal_open("cut.db", &journal, &error);
        if (status == LB_STATUS_OK)
            fail_msg("cut at byte %lld of %lld, and opened", (long long)at, (long long)info.st_size);
        assert_int_equal(status, LB_STATUS_FORMAT);
        n_refused++;
        struct stat after;
        assert_int_equal(stat("cut.db", &after), 0);
        assert_int_equal(after.st_size, at);
        unlink("cut.db-wal");
        unlink("cut.db-shm");
    }
    print_message("%d cuts, %d refused\n", n_cuts, n_refused);
    assert_true(n_cuts > 10);
    free(bytes);
}

static void test_fingerprints(void **state) {
    (void)state;
    lb_fingerprint f, g;
    lb_error error;
    write_file("abc", "abc", 3);
    assert_int_equal(lb_fingerprint_look("abc", &f, &error), LB_STATUS_OK);
    assert_string_equal(f.sha256, "");
    assert_int_equal(f.n_bytes, 3);
    assert_int_equal(lb_fingerprint_content("abc", NULL, &g, &error), LB_STATUS_OK);
    assert_string_equal(g.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_true(lb_fingerprint_same_look(&f, &g));
    assert_int_equal(lb_fingerprint_look("none", &f, &error), LB_STATUS_NOT_FOUND);
    assert_int_equal(lb_fingerprint_content("/dev/null", NULL, &f, &error), LB_STATUS_REFUSED);
    assert_int_equal(mkfifo("fifo", 0666), 0);
    assert_int_equal(lb_fingerprint_content("fifo", NULL, &f, &error), LB_STATUS_REFUSED);
    atomic_bool cancel = true;
    assert_int_equal(lb_fingerprint_content("abc", &cancel, &f, &error), LB_STATUS_INTERRUPTED);

    /* a folder of pictures: names, and contents in their order; other files and hidden ones do not count */
    assert_int_equal(mkdir("v", 0777), 0);
    write_file("v/1.png", "a", 1);
    write_file("v/2.png", "b", 1);
    assert_int_equal(lb_fingerprint_content("v", NULL, &f, &error), LB_STATUS_OK);
    assert_int_equal(f.n_bytes, 2);
    write_file("v/notes.txt", "c", 1);
    write_file("v/.3.png", "c", 1);
    assert_int_equal(lb_fingerprint_content("v", NULL, &g, &error), LB_STATUS_OK);
    assert_string_equal(f.sha256, g.sha256);
    write_file("v/1.png", "b", 1);
    write_file("v/2.png", "a", 1);
    assert_int_equal(lb_fingerprint_content("v", NULL, &g, &error), LB_STATUS_OK);
    assert_string_not_equal(f.sha256, g.sha256);
    write_file("v/1.png", "a", 1);
    write_file("v/2.png", "b", 1);
    assert_int_equal(rename("v/2.png", "v/3.png"), 0);
    assert_int_equal(lb_fingerprint_content("v", NULL, &g, &error), LB_STATUS_OK);
    assert_string_not_equal(f.sha256, g.sha256);

    lb_journal *journal = create("run.db");
    bool found;
    assert_int_equal(lb_journal_get_fingerprint(journal, "video", "a", &g, &found, &error), LB_STATUS_OK);
    assert_false(found);
    assert_int_equal(lb_journal_put_fingerprint(journal, "video", "a", &f, &error), LB_STATUS_OK);
    assert_int_equal(lb_journal_get_fingerprint(journal, "video", "a", &g, &found, &error), LB_STATUS_OK);
    assert_true(found);
    assert_memory_equal(&f, &g, sizeof f);
    assert_int_equal(lb_journal_get_fingerprint(journal, "weights", "a", &g, &found, &error), LB_STATUS_OK);
    assert_false(found);
    lb_journal_close(journal);
}

static void test_hash_cache(void **state) {
    (void)state;
    lb_fingerprint f, g;
    lb_error error;
    write_file("large", "abc", 3);
    assert_int_equal(lb_fingerprint_content("large", NULL, &f, &error), LB_STATUS_OK);
    g = f;
    g.sha256[0] = 0;
    assert_false(lb_fingerprint_recall("large", &g));
    lb_fingerprint_remember("large", &f);
    assert_true(lb_fingerprint_recall("large", &g));
    assert_string_equal(g.sha256, f.sha256);
    assert_true(lb_fingerprint_recall("./large", &g)); /* by whatever name */
    g.mtime_ns++;
    g.sha256[0] = 0;
    assert_false(lb_fingerprint_recall("large", &g));
    g = f;
    g.ctime_ns--;
    assert_false(lb_fingerprint_recall("large", &g));
    g = f;
    g.n_bytes++;
    assert_false(lb_fingerprint_recall("large", &g));
    /* a cache that somebody else wrote, or a crash */
    write_file("cache/hashes", "xyz\nba78 3 ", 11);
    g = f;
    assert_false(lb_fingerprint_recall("large", &g));
    lb_fingerprint_remember("large", &f); /* its line goes behind what was cut short: not found, and no harm */
    lb_fingerprint_remember("large", &f);
    assert_true(lb_fingerprint_recall("large", &g));
    assert_string_equal(g.sha256, f.sha256);
}

static void test_jsonl(void **state) {
    (void)state;
    lb_journal *journal = create("run.db");
    lb_error error;
    static const float logits[] = {1.5f, -2, 0};
    static const char odd[] =
        "\"q\\\n\r\t\x01\x7f \xc2\x85 \xe2\x80\xa8\xe2\x80\xa9 \xe2\x80\xaa đường \xf0\x9f\x9a\xa6";
    lb_journal_record record = {.index = 4,
                                .id = odd,
                                .video_path = "v",
                                .letter = 1,
                                .text = "B",
                                .prompt = "",
                                .n_choices = 3,
                                .letter_logits = logits,
                                .generate_s = 0.25,
                                .elapsed_s = 1.5,
                                .device_bytes = -1,
                                .truth = 2,
                                .adapted = "num_frames=6"};
    assert_int_equal(lb_journal_append(journal, &record, &error), LB_STATUS_OK);
    append(journal, 1, "broken");
    assert_int_equal(lb_journal_export(journal, "run.jsonl", LB_JOURNAL_JSONL, NULL, &error), LB_STATUS_OK);
    FILE *file = fopen("run.jsonl", "r");
    char line[4096];
    assert_non_null(fgets(line, sizeof line, file));
    json_t *one = json_loads(line, 0, NULL);
    assert_non_null(one);
    assert_int_equal(json_integer_value(json_object_get(one, "question")), 1);
    assert_string_equal(json_string_value(json_object_get(one, "error")), "broken");
    assert_true(json_is_true(json_object_get(one, "fallback")));
    assert_true(json_is_null(json_object_get(one, "adapted")));
    json_decref(one);
    assert_non_null(fgets(line, sizeof line, file));
    for (const char *at = line; *at; at++) /* one line to whoever counts lines by Unicode's rules, too */
        assert_false(strncmp(at, "\xc2\x85", 2) == 0 || strncmp(at, "\xe2\x80\xa8", 3) == 0);
    assert_non_null(one = json_loads(line, 0, NULL));
    assert_int_equal(json_object_size(one), 22);
    assert_string_equal(json_string_value(json_object_get(one, "id")), odd);
    assert_true(json_real_value(json_array_get(json_object_get(one, "letter_logits"), 0)) == 1.5);
    assert_true(json_real_value(json_object_get(one, "generate_s")) == 0.25);
    assert_string_equal(json_string_value(json_object_get(one, "adapted")), "num_frames=6");
    assert_true(json_real_value(json_object_get(one, "elapsed_s")) == 1.5);
    assert_string_equal(json_string_value(json_object_get(one, "truth")), "C");
    assert_true(json_is_false(json_object_get(one, "fallback")));
    json_decref(one);
    assert_null(fgets(line, sizeof line, file));
    fclose(file);
    assert_int_equal(lb_journal_export(journal, "few.jsonl", LB_JOURNAL_JSONL, "answer,question", &error),
                     LB_STATUS_OK);
    file = fopen("few.jsonl", "r");
    assert_non_null(fgets(line, sizeof line, file));
    assert_string_equal(line, "{\"answer\": \"B\", \"question\": 1}\n");
    fclose(file);
    lb_journal_close(journal);
}

/* On a medium that cannot be written: SQLite can make neither log nor index there. */
static void test_read_only_folder(void **state) {
    (void)state;
    assert_int_equal(mkdir("ro", 0777), 0);
    lb_journal *journal = create("ro/run %20?#.db");
    append(journal, 0, NULL);
    lb_journal_close(journal);
    assert_int_equal(chmod("ro/run %20?#.db", 0444) | chmod("ro", 0555), 0);
    assert_int_equal(chmod(".", 0755), 0);
    pid_t child = fork();
    if (!child) {
        lb_error error;
        lb_journal_counts counts = {0};
        if (geteuid() == 0 && (setgid(65534) || setuid(65534)))
            _exit(2);
        if (lb_journal_open_read_only("ro/run %20?#.db", &journal, &error) != LB_STATUS_OK ||
            lb_journal_count(journal, &counts, &error) != LB_STATUS_OK)
            print_error("%s\n", error.message);
        lb_journal_close(journal);
        _exit(counts.n_records == 1 ? 0 : 1);
    }
    int how;
    waitpid(child, &how, 0);
    assert_int_equal(how, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, enter, leave)
int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_goes_on),      TEST(test_one_process), TEST(test_no_journal), TEST(test_cut_short),
        TEST(test_fingerprints), TEST(test_hash_cache),  TEST(test_jsonl),      TEST(test_read_only_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
