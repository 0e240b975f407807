/* safetensors headers: a good one read back, and hostile ones that each end in one line naming what is wrong. */
#include "detector/safetensors.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

typedef struct bytes {
    uint8_t *data; /* exactly n allocated, so that AddressSanitizer sees a read past them */
    size_t n;
} bytes;

static bytes make(const char *json, size_t n_data) {
    size_t n = strlen(json);
    bytes b = {malloc(8 + n + n_data), 8 + n + n_data};
    assert_non_null(b.data);
    for (int i = 0; i < 8; i++)
        b.data[i] = (uint8_t)((uint64_t)n >> (8 * i));
    memcpy(b.data + 8, json, n);
    for (size_t i = 0; i < n_data; i++)
        b.data[8 + n + i] = (uint8_t)i;
    return b;
}

static void refuse(bytes b, const char *says) {
    lb_safetensors *file;
    lb_error error = {0};
    lb_status status = lb_safetensors_open_bytes("x.safetensors", b.data, b.n, &file, &error);
    if (status != LB_STATUS_FORMAT || file || !strstr(error.message, says))
        fail_msg("expected a FORMAT error with '%s', got %s: %s", says, lb_status_name(status), error.message);
    assert_non_null(strstr(error.message, "x.safetensors"));
    free(b.data);
}

static void test_good(void **state) {
    (void)state;
    bytes b = make("{\"__metadata__\":{\"format\":\"pt\"},"
                   "\"b\":{\"dtype\":\"F16\",\"shape\":[3],\"data_offsets\":[8,14]},"
                   "\"a\":{\"dtype\":\"F32\",\"shape\":[2,1],\"data_offsets\":[0,8]},"
                   "\"empty\":{\"dtype\":\"F32\",\"shape\":[0,5],\"data_offsets\":[8,8]},"
                   "\"scalar\":{\"dtype\":\"BF16\",\"shape\":[],\"data_offsets\":[14,16]},"
                   "\"index\":{\"dtype\":\"I64\",\"shape\":[1],\"data_offsets\":[16,24]}}",
                   24);
    uint8_t *data = b.data + b.n - 24;
    const float a[2] = {1.5f, -2};
    memcpy(data, a, 8);
    memcpy(data + 8, (uint8_t[]){0x00, 0x3C, 0x00, 0xC0, 0x01, 0x00}, 6); /* 1, -2, 2^-24 */
    memcpy(data + 14, (uint8_t[]){0x80, 0x3F}, 2);                        /* 1 */
    lb_safetensors *file;
    lb_error error = {0};
    if (lb_safetensors_open_bytes("good", b.data, b.n, &file, &error) != LB_STATUS_OK)
        fail_msg("%s", error.message);
    assert_int_equal(lb_safetensors_n(file), 5);
    const lb_safetensors_tensor *t = lb_safetensors_find(file, "a");
    assert_non_null(t);
    assert_int_equal(t->n_dims, 2);
    assert_int_equal(t->shape[0], 2);
    float out[3];
    assert_int_equal(lb_safetensors_f32(t, 1, 1, out, &error), LB_STATUS_OK);
    assert_true(out[0] == -2);
    assert_int_equal(lb_safetensors_f32(t, 1, 2, out, &error), LB_STATUS_INVALID_ARGUMENT);
    assert_int_equal(lb_safetensors_f32(lb_safetensors_find(file, "b"), 0, 3, out, &error), LB_STATUS_OK);
    assert_true(out[0] == 1 && out[1] == -2 && out[2] == 0x1p-24f);
    assert_int_equal(lb_safetensors_f32(lb_safetensors_find(file, "scalar"), 0, 1, out, &error), LB_STATUS_OK);
    assert_true(out[0] == 1);
    assert_int_equal(lb_safetensors_f32(lb_safetensors_find(file, "empty"), 0, 0, out, &error), LB_STATUS_OK);
    assert_int_equal(lb_safetensors_f32(lb_safetensors_find(file, "index"), 0, 1, out, &error), LB_STATUS_UNSUPPORTED);
    assert_null(lb_safetensors_find(file, "c"));
    assert_null(lb_safetensors_find(file, "__metadata__"));
    lb_safetensors_close(file);
    free(b.data);
}

static void test_hostile(void **state) {
    (void)state;
#define T(rest) "{\"t\":{" rest "}}"
    const struct {
        const char *json;
        size_t n_data;
        const char *says;
    } cases[] = {
        {"[]", 0, "no JSON object"},
        {"{", 0, "no JSON"},
        {"", 0, "no JSON"},
        {"{\"t\":3}", 0, "dtype, shape, data_offsets"},
        {T("\"dtype\":\"F32\",\"shape\":[1]"), 4, "dtype, shape, data_offsets"},
        {T("\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"x\":1"), 4, "dtype, shape, data_offsets"},
        {T("\"dtype\":\"F99\",\"shape\":[1],\"data_offsets\":[0,4]"), 4, "dtype"},
        {T("\"dtype\":4,\"shape\":[1],\"data_offsets\":[0,4]"), 4, "dtype"},
        {T("\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]"), 4, "from 0 up"},
        {T("\"dtype\":\"F32\",\"shape\":[1.0],\"data_offsets\":[0,4]"), 4, "from 0 up"},
        {T("\"dtype\":\"F32\",\"shape\":[null],\"data_offsets\":[0,4]"), 4, "from 0 up"},
        {T("\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,4]"), 4, "8 dimensions"},
        /* 2^62 * 4 bytes is 0 in 64 bits */
        {T("\"dtype\":\"F32\",\"shape\":[4611686018427387904],\"data_offsets\":[0,0]"), 0, "larger than any memory"},
        {T("\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]"), 0, "larger than any memory"},
        {T("\"dtype\":\"F32\",\"shape\":[99999999999999999999],\"data_offsets\":[0,0]"), 0, "no JSON"},
        {T("\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,8]"), 8, "do not fit its shape"},
        {T("\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]"), 3, "past the end"},
        {T("\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]"), 4, "past the end"},
        {T("\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[-4,0]"), 4, "past the end"},
        {T("\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,8]"), 8, "past the end"},
        {T("\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[9223372036854775804,9223372036854775807]"), 4,
         "past the end"},
        {T("\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]"), 5, "belong to no tensor"},
        {T("\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[1,5]"), 5, "belong to no tensor"},
        {"{\"t\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
         "\"u\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[2,6]}}",
         6, "shares its bytes"},
        {"{\"t\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
         "\"u\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}",
         4, "shares its bytes"},
        {"{\"t\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
         "\"t\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}",
         4, "duplicate"},
        {"{\"\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "no name"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        refuse(make(cases[i].json, cases[i].n_data), cases[i].says);
}

static void test_lengths(void **state) {
    (void)state;
    for (size_t n = 0; n < 8; n++) {
        bytes b = {calloc(1, n + 1), n};
        refuse(b, "too short");
    }
    bytes b = make("{}", 0);
    memset(b.data, 0xFF, 8);
    refuse(b, "no safetensors header");
    b = make("{}", 0);
    b.data[0] = 3;
    refuse(b, "truncated");
    char *deep = calloc(1, 100001); /* brackets until the stack of a careless reader is gone */
    memset(deep, '[', 100000);
    refuse(make(deep, 0), "no JSON");
    free(deep);
}

/* Nothing but an error or a file whose every byte can be read comes of a cut or changed one. */
static void test_cut_and_changed(void **state) {
    (void)state;
    const char *json = "{\"a\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]},"
                       "\"b\":{\"dtype\":\"BF16\",\"shape\":[4],\"data_offsets\":[24,32]}}";
    unsigned seed = 1;
    int n_good = 0;
    for (int i = 0; i < 20000; i++) {
        bytes b = make(json, 32);
        size_t n = i < (int)b.n ? (size_t)i : b.n;
        uint8_t *copy = malloc(n ? n : 1);
        memcpy(copy, b.data, n);
        free(b.data);
        for (int k = 0; n && i >= (int)b.n && k < 1 + i % 3; k++) {
            seed = seed * 1664525u + 1013904223u;
            copy[(seed >> 8) % n] = (seed & 64) ? (uint8_t) "0123456789[]{}\",:"[(seed >> 3) % 17] : (uint8_t)seed;
        }
        lb_safetensors *file;
        lb_error error = {0};
        if (lb_safetensors_open_bytes("changed", copy, n, &file, &error) == LB_STATUS_OK) {
            n_good++;
            for (size_t t = 0; t < lb_safetensors_n(file); t++) {
                float *out = malloc(sizeof(float) * (size_t)(lb_safetensors_at(file, t)->n_elements + 1));
                (void)lb_safetensors_f32(lb_safetensors_at(file, t), 0, lb_safetensors_at(file, t)->n_elements, out,
                                         NULL);
                free(out);
            }
            lb_safetensors_close(file);
        } else {
            assert_true(error.message[0] != 0);
        }
        free(copy);
    }
    assert_true(n_good > 0); /* changes in the data or a name leave a good file */
}

static void test_files(void **state) {
    (void)state;
    lb_safetensors *file;
    lb_error error = {0};
    assert_int_equal(lb_safetensors_open("no-such-file", &file, &error), LB_STATUS_NOT_FOUND);
    assert_int_equal(lb_safetensors_open(".", &file, &error), LB_STATUS_IO);
    assert_int_equal(lb_safetensors_open("/dev/null", &file, &error), LB_STATUS_IO);
    lb_safetensors_close(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),    cmocka_unit_test(test_hostile),
        cmocka_unit_test(test_lengths), cmocka_unit_test(test_cut_and_changed),
        cmocka_unit_test(test_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
