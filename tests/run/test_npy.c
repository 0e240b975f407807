/* The bytes of .npy files, and the names of --dump. */
#include "run/npy.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "../base/scratch.h"

static size_t read_back(const char *name, unsigned char *bytes, size_t room) {
    char path[256];
    snprintf(path, sizeof path, "%s/%s", scratch, name);
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    size_t n = fread(bytes, 1, room, file);
    fclose(file);
    return n;
}

static void expect_array(const char *type, int n_dims, const int64_t *shape, const void *data, size_t n_bytes,
                         const char *header) {
    unsigned char bytes[1024];
    lb_error error = {0};
    if (lb_npy_write(scratch, "x.npy", type, n_dims, shape, data, &error) != LB_STATUS_OK)
        fail_msg("%s", error.message);
    size_t n = read_back("x.npy", bytes, sizeof bytes);
    assert_memory_equal(bytes, "\x93NUMPY\x01\x00", 8);
    size_t n_header = bytes[8] + 256u * bytes[9];
    assert_int_equal((10 + n_header) % 64, 0); /* the format: the data begins at a multiple of 64 */
    assert_int_equal(bytes[9 + n_header], '\n');
    assert_int_equal(n, 10 + n_header + n_bytes);
    assert_memory_equal(bytes + 10, header, strlen(header));
    for (size_t i = 10 + strlen(header); i < 9 + n_header; i++)
        assert_int_equal(bytes[i], ' ');
    assert_memory_equal(bytes + 10 + n_header, data, n_bytes);
}

static void test_parts(void **state) {
    (void)state;
    unsigned char whole[1024], parts[1024];
    const int32_t data[6] = {1, -2, 3, 4, 5, 1 << 30};
    const int64_t shape[] = {3, 2};
    const void *const part[] = {data, data + 2, data + 4};
    assert_int_equal(lb_npy_write(scratch, "whole.npy", "<i4", 2, shape, data, NULL), LB_STATUS_OK);
    assert_int_equal(lb_npy_write_parts(scratch, "parts.npy", "<i4", 2, shape, part, NULL), LB_STATUS_OK);
    const size_t n = read_back("whole.npy", whole, sizeof whole);
    assert_int_equal(read_back("parts.npy", parts, sizeof parts), n);
    assert_memory_equal(parts, whole, n);
}

static void test_arrays(void **state) {
    (void)state;
    expect_array("<i8", 1, (int64_t[]){3}, (int64_t[]){1, -2, 1ll << 40}, 24,
                 "{'descr': '<i8', 'fortran_order': False, 'shape': (3,), }");
    expect_array("|u1", 4, (int64_t[]){1, 2, 2, 3}, "abcdefghijkl", 12,
                 "{'descr': '|u1', 'fortran_order': False, 'shape': (1, 2, 2, 3,), }");
    expect_array("<f4", 2, (int64_t[]){2, 2}, (float[]){1, 2, 3, 4}, 16,
                 "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2,), }");
    expect_array("<i4", 1, (int64_t[]){0}, "", 0, "{'descr': '<i4', 'fortran_order': False, 'shape': (0,), }");
    expect_array("|u1", 2, (int64_t[]){INT64_MAX, 0}, "", 0,
                 "{'descr': '|u1', 'fortran_order': False, 'shape': (9223372036854775807, 0,), }");
}

static void test_text(void **state) {
    (void)state;
    unsigned char bytes[64];
    assert_int_equal(lb_text_write(scratch, "t.txt", "Câu\r\n", 6, NULL), LB_STATUS_OK);
    assert_int_equal(read_back("t.txt", bytes, sizeof bytes), 6);
    assert_memory_equal(bytes, "Câu\r\n", 6);
}

static void test_what_cannot_be_written(void **state) {
    (void)state;
    lb_error error = {0};
    assert_int_equal(lb_npy_write("/nowhere", "x.npy", "|u1", 1, (int64_t[]){1}, "a", &error), LB_STATUS_IO);
    assert_non_null(strstr(error.message, "/nowhere/x.npy"));
    if (access("/dev/full", W_OK) == 0) {
        assert_int_equal(lb_text_write("/dev", "full", "text", 4, &error), LB_STATUS_IO);
        assert_non_null(strstr(error.message, "/dev/full"));
    }
    char name[5000];
    memset(name, 'x', sizeof name - 1);
    name[sizeof name - 1] = 0;
    assert_int_equal(lb_text_write(scratch, name, "", 0, &error), LB_STATUS_IO);
}

static void test_names(void **state) {
    (void)state;
    char out[8];
    lb_name_clean("aZ09._-", out, sizeof out);
    assert_string_equal(out, "aZ09._-");
    lb_name_clean("a/b\\c d", out, sizeof out);
    assert_string_equal(out, "a_b_c_d");
    lb_name_clean("đ\n\xff", out, sizeof out);
    assert_string_equal(out, "____");
    lb_name_clean("much too long", out, sizeof out);
    assert_string_equal(out, "much_to");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_arrays), cmocka_unit_test(test_parts),
        cmocka_unit_test(test_text),   cmocka_unit_test(test_what_cannot_be_written),
        cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, make_scratch, remove_scratch);
}
