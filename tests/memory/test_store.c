/* The cache on disk: entries come back whole or not at all, the oldest goes first, and the folder never holds more than
 * the limit, also when several write at once. */
#include "memory/store.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

enum { BYTES = 1000, ENTRY = BYTES + LB_STORE_HEADER };
static char folder[64];

static lb_store *open_store(size_t limit) {
    lb_store *store;
    lb_error error = {0};
    if (lb_store_open(folder, limit, &store, &error) != LB_STATUS_OK)
        fail_msg("%s", error.message);
    return store;
}

static int make_folder(void **state) {
    (void)state;
    strcpy(folder, "/tmp/lowbeam-store-XXXXXX");
    if (!mkdtemp(folder))
        return -1;
    strcat(folder, "/a/b"); /* is made */
    return 0;
}

static int remove_folder(void **state) {
    (void)state;
    char command[128];
    folder[strlen(folder) - strlen("/a/b")] = 0;
    snprintf(command, sizeof command, "rm -r %s", folder);
    return system(command);
}

static void put(lb_store *store, const char *name) {
    uint8_t data[BYTES];
    lb_error error = {0};
    memset(data, name[0], sizeof data);
    if (lb_store_put(store, name, data, sizeof data, &error) != LB_STATUS_OK)
        fail_msg("%s", error.message);
    usleep(20000); /* the file system's clock goes in steps */
}

static bool is_there(lb_store *store, const char *name) {
    const int fd = lb_store_get(store, name);
    usleep(20000);
    if (fd < 0)
        return false;
    uint8_t data[BYTES], expected[BYTES];
    memset(expected, name[0], sizeof expected);
    assert_int_equal(pread(fd, data, sizeof data, LB_STORE_HEADER), sizeof data);
    assert_memory_equal(data, expected, sizeof data);
    close(fd);
    return true;
}

/* Bytes of all files, the partial one among them. */
static size_t held(void) {
    DIR *dir = opendir(folder);
    size_t bytes = 0;
    struct stat st;
    for (const struct dirent *e; (e = readdir(dir));)
        if (fstatat(dirfd(dir), e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode))
            bytes += (size_t)st.st_size;
    closedir(dir);
    return bytes;
}

static void test_the_oldest_goes_first(void **state) {
    (void)state;
    lb_store *store = open_store(3 * ENTRY + ENTRY / 2);
    put(store, "a");
    put(store, "b");
    put(store, "c");
    assert_true(is_there(store, "a")); /* younger than b now, by the file's time */
    lb_store_close(store);
    store = open_store(3 * ENTRY); /* another process */
    put(store, "d");
    assert_false(is_there(store, "b"));
    assert_true(is_there(store, "a") && is_there(store, "c") && is_there(store, "d"));
    put(store, "a"); /* replaced: nothing else has to go */
    assert_true(is_there(store, "c") && is_there(store, "d"));
    assert_int_equal(held(), 3 * ENTRY);
    lb_store_rename(store, "c", "e");
    assert_false(is_there(store, "c"));
    lb_store_rename(store, "d", NULL);
    lb_store_rename(store, "none", "a");
    assert_false(is_there(store, "d"));
    assert_true(is_there(store, "a"));
    lb_store_close(store);
}

static void test_larger_than_the_limit(void **state) {
    (void)state;
    uint8_t data[BYTES] = {0};
    lb_store *store = open_store(ENTRY);
    put(store, "a");
    assert_int_equal(lb_store_put(store, "b", data, BYTES, NULL), LB_STATUS_OK);
    assert_false(is_there(store, "a"));
    lb_store_close(store);
    store = open_store(ENTRY - 1);
    lb_error error = {0};
    assert_int_equal(lb_store_put(store, "c", data, BYTES, &error), LB_STATUS_DOES_NOT_FIT);
    assert_int_equal(lb_store_get(store, "c"), -1);
    assert_int_equal(held(), ENTRY); /* and nothing went for it */
    lb_store_close(store);
}

static void change(const char *name, off_t at, bool cut) {
    char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    const int fd = open(path, O_RDWR);
    uint8_t byte;
    assert_true(fd >= 0);
    if (cut) {
        assert_int_equal(ftruncate(fd, at), 0);
    } else {
        assert_int_equal(pread(fd, &byte, 1, at), 1);
        byte ^= 0x10;
        assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    }
    close(fd);
}

/* Whatever byte of what matters is another one, and wherever it is cut: not given out, and gone. */
static void test_damage_is_seen(void **state) {
    (void)state;
    lb_store *store = open_store(10 * ENTRY);
    for (off_t at = 0; at < ENTRY; at += at < 88 ? 1 : 97) {
        put(store, "x");
        change("x", at, at % 2);
        assert_int_equal(lb_store_get(store, "x"), -1);
        char path[128];
        snprintf(path, sizeof path, "%s/x", folder);
        assert_int_not_equal(access(path, F_OK), 0);
    }
    lb_store_close(store);
}

/* Somebody died while writing: the rest is taken away, and never given out. */
static void test_a_partial_file_is_taken_away(void **state) {
    (void)state;
    char path[128];
    lb_store *store = open_store(10 * ENTRY);
    snprintf(path, sizeof path, "%s/.partial", folder);
    const int fd = open(path, O_WRONLY | O_CREAT, 0666);
    assert_int_equal(ftruncate(fd, 100 * ENTRY), 0);
    close(fd);
    put(store, "a");
    assert_int_not_equal(access(path, F_OK), 0);
    assert_true(is_there(store, "a"));
    lb_store_close(store);
}

static void *hammer(void *user) {
    const char *first = user;
    lb_store *store = open_store(4 * ENTRY);
    uint8_t data[BYTES];
    char name[8];
    for (int i = 0; i < 40; i++) {
        snprintf(name, sizeof name, "%c%d", *first, i % 7);
        memset(data, name[0], sizeof data);
        if (lb_store_put(store, name, data, (size_t)(1 + i * 24), NULL) != LB_STATUS_OK)
            break;
        const size_t bytes = held();
        if (bytes > 4 * ENTRY) {
            print_error("%zu bytes of %d\n", bytes, 4 * ENTRY);
            return user;
        }
    }
    lb_store_close(store);
    return NULL;
}

static void test_several_writers_keep_the_limit(void **state) {
    (void)state;
    static char names[] = "pqr";
    pthread_t thread[3];
    for (int i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, hammer, &names[i]), 0);
    for (int i = 0; i < 3; i++) {
        void *failed;
        pthread_join(thread[i], &failed);
        assert_null(failed);
    }
}

static void test_folders_that_are_none(void **state) {
    (void)state;
    lb_store *store;
    lb_error error = {0};
    assert_int_equal(lb_store_open("/proc/version/x", 100, &store, &error), LB_STATUS_IO);
    assert_non_null(strstr(error.message, "/proc/version"));
    assert_null(store);
    lb_store_close(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_the_oldest_goes_first, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_larger_than_the_limit, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_damage_is_seen, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_a_partial_file_is_taken_away, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_several_writers_keep_the_limit, make_folder, remove_folder),
        cmocka_unit_test(test_folders_that_are_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
