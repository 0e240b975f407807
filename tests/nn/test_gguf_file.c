/* GGUF headers: what a sound one gives, and that a truncated or damaged one is an error with the path in it, whatever
 * was hit. The file is written here by ggml's own writer. */
#include "nn/gguf_file.h"

#include "nn/log.h"

#include <ggml.h>
#include <gguf.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

static char path[64], other[64];

static int make_file(void **state) {
    (void)state;
    strcpy(path, "/tmp/lowbeam-gguf-XXXXXX");
    strcpy(other, "/tmp/lowbeam-gguf-XXXXXX");
    int fd = mkstemp(path), fd_other = mkstemp(other);
    if (fd < 0 || fd_other < 0)
        return -1;
    close(fd);
    close(fd_other);
    struct gguf_context *g = gguf_init_empty();
    gguf_set_val_str(g, "general.architecture", "clip");
    gguf_set_val_u8(g, "n.u8", 200);
    gguf_set_val_i8(g, "n.i8", -3);
    gguf_set_val_u16(g, "n.u16", 60000);
    gguf_set_val_i16(g, "n.i16", -30000);
    gguf_set_val_u32(g, "n.u32", 4000000000u);
    gguf_set_val_i32(g, "n.i32", -5);
    gguf_set_val_u64(g, "n.u64", 1ull << 40);
    gguf_set_val_u64(g, "n.huge", UINT64_MAX);
    gguf_set_val_i64(g, "n.i64", -(1ll << 40));
    gguf_set_val_f32(g, "f", 0.5f);
    gguf_set_val_bool(g, "b", true);
    gguf_set_arr_data(g, "mean", GGUF_TYPE_FLOAT32, (float[]){0.25f, 0.5f, 0.75f}, 3);
    gguf_set_arr_str(g, "tokens", (const char *[]){"a", "đ"}, 2);
    struct ggml_context *ctx = ggml_init((struct ggml_init_params){.mem_size = 1 << 20});
    struct ggml_tensor *matrix = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, 4, 3);
    struct ggml_tensor *half = ggml_new_tensor_2d(ctx, GGML_TYPE_F16, 2, 2);
    for (int i = 0; i < 12; i++)
        ((float *)matrix->data)[i] = (float)i;
    for (int i = 0; i < 4; i++)
        ((ggml_fp16_t *)half->data)[i] = ggml_fp32_to_fp16((float)i + 0.5f);
    ggml_set_name(matrix, "matrix");
    ggml_set_name(half, "half");
    gguf_add_tensor(g, matrix);
    gguf_add_tensor(g, half);
    bool written = gguf_write_to_file(g, path, false);
    ggml_free(ctx);
    gguf_free(g);
    return written ? 0 : -1;
}

static int remove_file(void **state) {
    (void)state;
    unlink(path);
    unlink(other);
    return 0;
}

static lb_gguf *open_it(const char *name) {
    lb_gguf *file;
    lb_error error = {0};
    if (lb_gguf_open(name, &file, &error) != LB_STATUS_OK)
        fail_msg("%s", error.message);
    return file;
}

static void test_integers_of_every_type(void **state) {
    (void)state;
    lb_gguf *file = open_it(path);
    const struct {
        const char *key;
        int64_t value;
    } table[] = {{"n.u8", 200},         {"n.i8", -3},  {"n.u16", 60000},     {"n.i16", -30000},
                 {"n.u32", 4000000000}, {"n.i32", -5}, {"n.u64", 1ll << 40}, {"n.i64", -(1ll << 40)}};
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        int64_t value;
        assert_int_equal(lb_gguf_int(file, table[i].key, &value, NULL), LB_STATUS_OK);
        assert_int_equal(value, table[i].value);
        assert_int_equal(lb_gguf_int_or(file, table[i].key, 7), table[i].value);
    }
    assert_int_equal(lb_gguf_int_or(file, "none", 7), 7);
    assert_int_equal(lb_gguf_int_or(file, "f", 7), 7);
    lb_gguf_close(file);
}

static void test_other_values(void **state) {
    (void)state;
    lb_gguf *file = open_it(path);
    float f, three[3];
    const char *text;
    assert_int_equal(lb_gguf_float(file, "f", &f, NULL), LB_STATUS_OK);
    assert_true(f == 0.5f);
    assert_int_equal(lb_gguf_floats(file, "mean", 3, three, NULL), LB_STATUS_OK);
    assert_true(three[0] == 0.25f && three[2] == 0.75f);
    assert_int_equal(lb_gguf_string(file, "general.architecture", &text, NULL), LB_STATUS_OK);
    assert_string_equal(text, "clip");
    assert_true(lb_gguf_bool_or(file, "b", false));
    assert_true(lb_gguf_bool_or(file, "none", true));
    assert_false(lb_gguf_bool_or(file, "f", false));
    assert_true(lb_gguf_has(file, "tokens"));
    assert_int_equal(lb_gguf_array_n(file, "tokens"), 2);
    assert_string_equal(lb_gguf_array_string(file, "tokens", 1), "đ");
    assert_null(lb_gguf_array_string(file, "tokens", 2));
    assert_int_equal(lb_gguf_array_n(file, "mean"), 0);
    assert_string_equal(lb_gguf_path(file), path);
    lb_gguf_close(file);
}

static void test_wrong_key_or_type_is_named(void **state) {
    (void)state;
    lb_gguf *file = open_it(path);
    lb_error error = {0};
    int64_t i;
    float f[4];
    const char *text;
    assert_int_equal(lb_gguf_int(file, "nothing", &i, &error), LB_STATUS_FORMAT);
    assert_non_null(strstr(error.message, "'nothing'"));
    assert_non_null(strstr(error.message, path));
    assert_int_equal(lb_gguf_int(file, "f", &i, &error), LB_STATUS_FORMAT);
    assert_non_null(strstr(error.message, "'f' is not an integer"));
    assert_int_equal(lb_gguf_int(file, "n.huge", &i, &error), LB_STATUS_FORMAT);
    assert_int_equal(lb_gguf_int(file, "mean", &i, &error), LB_STATUS_FORMAT);
    assert_int_equal(lb_gguf_float(file, "n.u8", f, &error), LB_STATUS_FORMAT);
    assert_int_equal(lb_gguf_floats(file, "mean", 4, f, &error), LB_STATUS_FORMAT);
    assert_non_null(strstr(error.message, "an array of 4 32-bit floats"));
    assert_int_equal(lb_gguf_floats(file, "tokens", 2, f, &error), LB_STATUS_FORMAT);
    assert_int_equal(lb_gguf_floats(file, "f", 1, f, &error), LB_STATUS_FORMAT);
    assert_int_equal(lb_gguf_string(file, "tokens", &text, &error), LB_STATUS_FORMAT);
    assert_null(text);
    lb_gguf_close(file);
}

static void test_tensors(void **state) {
    (void)state;
    lb_gguf *file = open_it(path);
    lb_gguf_tensor tensor;
    float row[4];
    lb_error error = {0};
    assert_int_equal(lb_gguf_n_tensors(file), 2);
    assert_false(lb_gguf_find(file, "none", &tensor));
    assert_true(lb_gguf_find(file, "matrix", &tensor));
    assert_string_equal(tensor.name, "matrix");
    assert_int_equal(tensor.n_bytes, 48);
    assert_true(tensor.ne[0] == 4 && tensor.ne[1] == 3 && tensor.ne[2] == 1 && tensor.ne[3] == 1);
    assert_int_equal(lb_gguf_row(&tensor, 2, row, &error), LB_STATUS_OK);
    assert_true(row[0] == 8 && row[3] == 11);
    assert_int_equal(lb_gguf_row(&tensor, 3, row, &error), LB_STATUS_INVALID_ARGUMENT);
    assert_int_equal(lb_gguf_row(&tensor, -1, row, &error), LB_STATUS_INVALID_ARGUMENT);
    assert_true(lb_gguf_find(file, "half", &tensor));
    assert_int_equal(lb_gguf_row(&tensor, 1, row, &error), LB_STATUS_OK);
    assert_true(row[0] == 2.5f && row[1] == 3.5f);
    lb_gguf_close(file);
}

/* ---- damaged files ---- */

static char *read_all(size_t *n) {
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    char *bytes = malloc(1 << 20);
    assert_non_null(bytes);
    *n = fread(bytes, 1, 1 << 20, file);
    fclose(file);
    return bytes;
}

static void write_other(const char *bytes, size_t n) {
    FILE *file = fopen(other, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, n, file), n);
    fclose(file);
}

/* Opens it and reads whatever there is; false when it is refused, with its name in the message. */
static bool survives(void) {
    lb_gguf *file;
    lb_error error = {0};
    lb_status status = lb_gguf_open(other, &file, &error);
    if (status != LB_STATUS_OK) {
        assert_null(file);
        assert_int_equal(status, LB_STATUS_FORMAT);
        assert_int_equal(strncmp(error.message, other, strlen(other)), 0);
        return false;
    }
    volatile float sum = 0;
    for (size_t i = 0; i < lb_gguf_n_tensors(file); i++) {
        lb_gguf_tensor tensor;
        lb_gguf_tensor_at(file, i, &tensor);
        for (size_t k = 0; k < tensor.n_bytes; k++)
            sum += (float)((const uint8_t *)tensor.data)[k]; /* past the mapped file this would be a SIGBUS */
    }
    static const char *const keys[] = {"n.u8", "n.u32", "n.u64", "f", "b", "mean", "tokens", "general.architecture"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        int64_t v;
        float f[3];
        const char *text;
        lb_gguf_int(file, keys[i], &v, NULL);
        lb_gguf_float(file, keys[i], f, NULL);
        lb_gguf_floats(file, keys[i], 3, f, NULL);
        lb_gguf_string(file, keys[i], &text, NULL);
        lb_gguf_bool_or(file, keys[i], false);
        if (lb_gguf_array_n(file, keys[i]))
            assert_non_null(lb_gguf_array_string(file, keys[i], 0));
    }
    lb_gguf_close(file);
    return true;
}

static void test_truncated_at_every_byte(void **state) {
    (void)state;
    size_t n, n_bytes;
    char *bytes = read_all(&n_bytes);
    /* the last tensor's padding belongs to nothing: gguf_write_to_file pads to 32 bytes, "half" has 8 */
    const size_t needed = n_bytes - 24;
    for (n = 0; n < needed; n++) {
        write_other(bytes, n);
        if (survives())
            fail_msg("%zu of %zu bytes passed for a whole file", n, n_bytes);
    }
    write_other(bytes, n_bytes);
    assert_true(survives());
    free(bytes);
}

static void test_every_byte_of_the_header_changed(void **state) {
    (void)state;
    size_t n_bytes;
    char *bytes = read_all(&n_bytes);
    size_t refused = 0;
    for (size_t i = 0; i < n_bytes; i++) {
        static const unsigned char masks[] = {0x01, 0x80, 0xff};
        for (size_t k = 0; k < sizeof masks; k++) {
            bytes[i] = (char)(bytes[i] ^ masks[k]);
            write_other(bytes, n_bytes);
            refused += !survives();
            bytes[i] = (char)(bytes[i] ^ masks[k]);
        }
    }
    print_message("%zu of %zu changed files were refused\n", refused, 3 * n_bytes);
    assert_true(refused > n_bytes / 4); /* lengths, counts and types make up much of a small header */
    free(bytes);
}

static void test_what_is_no_file(void **state) {
    (void)state;
    lb_gguf *file;
    lb_error error = {0};
    assert_int_equal(lb_gguf_open("/nowhere/x.gguf", &file, &error), LB_STATUS_NOT_FOUND);
    assert_int_equal(lb_gguf_open("/tmp", &file, &error), LB_STATUS_IO);
    assert_int_equal(lb_gguf_open("/dev/null", &file, &error), LB_STATUS_IO);
    assert_null(file);
    write_other("", 0);
    assert_int_equal(lb_gguf_open(other, &file, &error), LB_STATUS_FORMAT);
    write_other("#!/bin/sh\necho this is no model at all\n", 39);
    assert_int_equal(lb_gguf_open(other, &file, &error), LB_STATUS_FORMAT);
    assert_non_null(strstr(error.message, "not a GGUF file"));
    lb_gguf_close(NULL);
}

int main(void) {
    lb_nn_log_start(); /* ggml tells each fault: not on this test's output */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_integers_of_every_type),
        cmocka_unit_test(test_other_values),
        cmocka_unit_test(test_wrong_key_or_type_is_named),
        cmocka_unit_test(test_tensors),
        cmocka_unit_test(test_truncated_at_every_byte),
        cmocka_unit_test(test_every_byte_of_the_header_changed),
        cmocka_unit_test(test_what_is_no_file),
    };
    return cmocka_run_group_tests(tests, make_file, remove_file);
}
