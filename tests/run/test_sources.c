/* Weights: small files are known at once, large ones by a thread, and a run that was begun with others is not resumed.
 */
#include "run/sources.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

enum { LARGE = 80 << 20 }; /* above what is read at once; a hole, but for its ends */

static int enter(void **state) {
    char folder[] = "/tmp/lowbeam-sources-XXXXXX";
    if (!mkdtemp(folder) || chdir(folder))
        return -1;
    setenv("LOWBEAM_CACHE", "cache", 1);
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

static void write_file(const char *path, const char *text, off_t size) {
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    assert_int_equal(fflush(file) || ftruncate(fileno(file), size), 0);
    fclose(file);
}

static lb_sources *look(void) {
    lb_sources *sources = lb_sources_new();
    lb_error error;
    assert_int_equal(lb_sources_add(sources, "model", "llm-00001-of-00003.gguf", &error), LB_STATUS_OK);
    assert_int_equal(lb_sources_add(sources, "mmproj", "mmproj.gguf", &error), LB_STATUS_OK);
    assert_int_equal(lb_sources_add(sources, "detector", NULL, &error), LB_STATUS_OK);
    assert_int_equal(lb_sources_add(sources, "other", "missing.gguf", &error), LB_STATUS_OK);
    return sources;
}

static lb_journal *create(lb_sources *sources) {
    lb_journal *journal;
    lb_error error;
    size_t n;
    const lb_journal_source *list = lb_sources_list(sources, &n);
    assert_int_equal(n, 4);
    assert_string_equal(list[0].name, "model");
    assert_string_equal(list[2].name, "model, part 3");
    assert_string_equal(list[3].name, "mmproj");
    assert_string_not_equal(list[0].fingerprint.sha256, "");
    if (lb_journal_create("run.db", NULL, list, n, &journal, &error) != LB_STATUS_OK)
        fail_msg("%s", error.message);
    return journal;
}

static int make_files(void **state) {
    if (enter(state))
        return -1;
    write_file("llm-00001-of-00003.gguf", "first", 1000);
    write_file("llm-00002-of-00003.gguf", "second", LARGE);
    write_file("llm-00003-of-00003.gguf", "third", 1000);
    write_file("mmproj.gguf", "vision", 1000);
    return 0;
}

static void assert_compares(lb_journal *journal, lb_status status, const char *words) {
    lb_sources *sources = look();
    lb_error error = {0};
    assert_int_equal(lb_sources_compare(sources, journal, "run.db", NULL, &error), status);
    if (!strstr(error.message, words))
        fail_msg("\"%s\" has not \"%s\"", error.message, words);
    lb_sources_free(sources);
}

static void test_thread(void **state) {
    (void)state;
    lb_sources *sources = look();
    lb_journal *journal = create(sources);
    lb_fingerprint f;
    lb_error error = {0};
    bool found;
    assert_int_equal(lb_journal_get_fingerprint(journal, "weights", "model, part 2", &f, &found, &error), LB_STATUS_OK);
    assert_true(found);
    assert_string_equal(f.sha256, ""); /* not yet */
    assert_int_equal(f.n_bytes, LARGE);
    assert_compares(journal, LB_STATUS_OK, ""); /* untouched: resumed without reading it */
    lb_sources_hash(sources);
    assert_int_equal(lb_sources_finish(sources, NULL, journal, "run.db", &error), LB_STATUS_OK);
    assert_false(lb_sources_ready(sources));
    assert_int_equal(lb_journal_get_fingerprint(journal, "weights", "model, part 2", &f, &found, &error), LB_STATUS_OK);
    /* of "second" and zeros, as Python's hashlib has it */
    assert_string_equal(f.sha256, "be763d7c19c49d96086380b3551e95dd7254bf25190c0b8a8743fdfe25bb12a5");
    lb_sources_free(sources);
    /* the next run finds it in the cache folder: known without a thread, though it was touched since for the journal */
    f.sha256[0] = 0;
    assert_true(lb_fingerprint_recall("llm-00002-of-00003.gguf", &f));

    /* a copy: another time, the same content, which has to be read */
    write_file("llm-00002-of-00003.gguf", "second", LARGE);
    assert_compares(journal, LB_STATUS_OK, "");
    write_file("llm-00002-of-00003.gguf", "seconD", LARGE);
    assert_compares(journal, LB_STATUS_REFUSED, "(model, part 2) in llm-00002-of-00003.gguf have another content");
    write_file("llm-00002-of-00003.gguf", "second", LARGE - 1);
    assert_compares(journal, LB_STATUS_REFUSED, "(model, part 2) in llm-00002-of-00003.gguf have another size");
    write_file("llm-00002-of-00003.gguf", "second", LARGE);
    write_file("missing.gguf", "there now", 1000);
    assert_compares(journal, LB_STATUS_REFUSED, "(other) in missing.gguf were not there then");
    lb_journal_close(journal);
}

static void test_stopped_before_it_was_read(void **state) {
    (void)state;
    lb_sources *sources = look();
    lb_journal *journal = create(sources);
    lb_error error = {0};
    atomic_bool cancel = true;
    lb_sources_hash(sources);
    assert_int_equal(lb_sources_finish(sources, &cancel, journal, "run.db", &error), LB_STATUS_OK);
    lb_sources_free(sources); /* does not wait until it is read */
    assert_compares(journal, LB_STATUS_OK, "");
    struct stat st;
    stat("llm-00002-of-00003.gguf", &st);
    const struct timespec times[2] = {st.st_atim, {st.st_mtim.tv_sec - 60, 0}};
    assert_int_equal(utimensat(AT_FDCWD, "llm-00002-of-00003.gguf", times, 0), 0);
    assert_compares(journal, LB_STATUS_REFUSED, "had read them to the end");
    lb_journal_close(journal);
    lb_sources_free(NULL);
}

/* Written to while its thread reads it: no hash is believed that is of neither content. */
static void test_changed_meanwhile(void **state) {
    (void)state;
    lb_sources *sources = look();
    lb_journal *journal = create(sources);
    lb_error error = {0};
    write_file("llm-00002-of-00003.gguf", "other", LARGE);
    lb_sources_hash(sources);
    assert_int_equal(lb_sources_finish(sources, NULL, journal, "run.db", &error), LB_STATUS_OK);
    lb_fingerprint f;
    bool found;
    assert_int_equal(lb_journal_get_fingerprint(journal, "weights", "model, part 2", &f, &found, &error), LB_STATUS_OK);
    assert_string_equal(f.sha256, "");
    lb_sources_free(sources);
    lb_journal_close(journal);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make_files, leave)
int main(void) {
    const struct CMUnitTest tests[] = {TEST(test_thread), TEST(test_stopped_before_it_was_read),
                                       TEST(test_changed_meanwhile)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
