/* lb_image_read against Pillow on the files of files/ (tools/make_image_refs.py), byte for byte; broken files; and the
 * PNG writer against the reader. Runs in this folder. */
#include "image/files.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

static uint8_t *read_all(const char *path, size_t *size) {
    FILE *file = fopen(path, "rb");
    if (!file)
        fail_msg("%s cannot be read; tools/make_image_refs.py makes it", path);
    uint8_t *bytes = malloc(1 << 20);
    assert_non_null(bytes);
    *size = fread(bytes, 1, 1 << 20, file);
    fclose(file);
    return bytes;
}

static void compare(const char *name) {
    char path[300];
    size_t size;
    snprintf(path, sizeof path, "files/%s.rgb", name);
    uint8_t *expected = read_all(path, &size);
    lb_image image;
    lb_error error = {0};
    snprintf(path, sizeof path, "files/%s", name);
    if (lb_image_read(path, 0, &image, &error) != LB_STATUS_OK)
        fail_msg("%s", error.message);
    uint32_t sides[2];
    memcpy(sides, expected, sizeof sides);
    assert_int_equal(image.width, sides[0]);
    assert_int_equal(image.height, sides[1]);
    assert_int_equal(size, 8 + 3 * sides[0] * sides[1]);
    for (size_t i = 0; i + 8 < size; i++)
        if (image.data[i] != expected[8 + i])
            fail_msg("%s: byte %zu (x %zu, y %zu) is %d, Pillow's %d", name, i, i / 3 % sides[0], i / 3 / sides[0],
                     image.data[i], expected[8 + i]);
    lb_image_free(&image);
    assert_null(image.data);
    free(expected);
}

static void files_give_pillow_s_pixels(void **state) {
    (void)state;
    DIR *folder = opendir("files");
    assert_non_null(folder);
    int n = 0;
    for (const struct dirent *entry; (entry = readdir(folder));) {
        const char *dot = strrchr(entry->d_name, '.');
        if (!dot || (strcmp(dot, ".png") && strcmp(dot, ".jpg")))
            continue;
        compare(entry->d_name);
        n++;
    }
    closedir(folder);
    printf("  %d files equal Pillow's pixels\n", n);
    assert_true(n >= 40); /* as many as the script makes; an empty folder must not pass */
}

static char scratch[] = "/tmp/lowbeam-files-XXXXXX";

static void write_file(const uint8_t *bytes, size_t n) {
    FILE *file = fopen(scratch, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, n, file), n);
    fclose(file);
}

static lb_status read_scratch(size_t max_bytes, lb_error *error) {
    lb_image image;
    *error = (lb_error){0};
    const lb_status status = lb_image_read(scratch, max_bytes, &image, error);
    if (status != LB_STATUS_OK) {
        assert_null(image.data);
        assert_non_null(strstr(error->message, scratch));
    }
    lb_image_free(&image);
    return status;
}

static const char *const sound[] = {"files/type2_8bit.png", "files/type3_4bit_interlaced.png", "files/type0_16bit.png",
                                    "files/420.jpg",        "files/progressive.jpg",           "files/cmyk.jpg"};
enum { N_SOUND = sizeof sound / sizeof *sound };

static void cut_files_are_refused(void **state) {
    (void)state;
    lb_error error;
    for (int k = 0; k < N_SOUND; k++) {
        size_t size;
        uint8_t *bytes = read_all(sound[k], &size);
        for (size_t n = 0; n < size - 30; n += 1 + n / 40) { /* the last 30 bytes may hold only an end mark */
            write_file(bytes, n);
            const lb_status status = read_scratch(0, &error);
            if (status != LB_STATUS_FORMAT)
                fail_msg("%s cut to %zu of %zu bytes: %s", sound[k], n, size, lb_status_name(status));
        }
        free(bytes);
    }
}

/* Any answer is right, as long as nothing crashes (run under AddressSanitizer, too). */
static void damaged_files_do_no_harm(void **state) {
    (void)state;
    lb_error error;
    uint32_t random = 1;
    for (int k = 0; k < N_SOUND; k++) {
        size_t size;
        uint8_t *bytes = read_all(sound[k], &size);
        for (int round = 0; round < 300; round++) {
            random = random * 1664525u + 1013904223u;
            const size_t at = random % size;
            const uint8_t kept = bytes[at];
            bytes[at] ^= (uint8_t)(random >> 24) | 1;
            write_file(bytes, size);
            read_scratch((size_t)1 << 26, &error);
            if (round % 3)
                bytes[at] = kept; /* else damage adds up */
        }
        free(bytes);
    }
}

static void other_things_are_refused(void **state) {
    (void)state;
    lb_image image;
    lb_error error;
    assert_int_equal(lb_image_read("files/missing.png", 0, &image, &error), LB_STATUS_NOT_FOUND);
    assert_non_null(strstr(error.message, "files/missing.png: "));
    assert_int_equal(lb_image_read("files", 0, &image, &error), LB_STATUS_IO);
    assert_int_equal(lb_image_read("/dev/zero", 0, &image, &error), LB_STATUS_IO);
    write_file((const uint8_t *)"GIF89a, say", 11);
    assert_int_equal(read_scratch(0, &error), LB_STATUS_FORMAT);
    assert_int_equal(lb_image_read("files/420.jpg", 19 * 13 * 3 - 1, &image, &error), LB_STATUS_OUT_OF_MEMORY);
    assert_int_equal(lb_image_read("files/type2_8bit.png", 19 * 13 * 3 - 1, &image, &error), LB_STATUS_OUT_OF_MEMORY);
    unlink(scratch);
    assert_int_equal(mkfifo(scratch, 0600), 0);
    assert_int_equal(read_scratch(0, &error), LB_STATUS_IO); /* at once, without waiting for a writer */
    unlink(scratch);
}

static void what_is_written_is_read(void **state) {
    (void)state;
    uint8_t pixels[5][40]; /* 11 pixels a row and padding that must not be written */
    for (size_t i = 0; i < sizeof pixels; i++)
        pixels[i / 40][i % 40] = (uint8_t)(i * 37);
    const lb_image_view view = {.data = pixels[0], .width = 11, .height = 5, .stride = 40};
    lb_error error = {0};
    if (lb_image_write_png(scratch, view, &error) != LB_STATUS_OK)
        fail_msg("%s", error.message);
    lb_image image;
    assert_int_equal(lb_image_read(scratch, 0, &image, &error), LB_STATUS_OK);
    assert_int_equal(image.width, 11);
    assert_int_equal(image.height, 5);
    for (int y = 0; y < 5; y++)
        assert_memory_equal(image.data + 33 * y, pixels[y], 33);
    lb_image_free(&image);
    assert_int_equal(lb_image_write_png("/nonexistent/x.png", view, &error), LB_STATUS_IO);
    assert_non_null(strstr(error.message, "/nonexistent/x.png"));
    assert_int_equal(lb_image_write_png("/dev/full", view, &error), LB_STATUS_IO);
}

static int set_up(void **state) {
    (void)state;
    const int fd = mkstemp(scratch);
    return fd < 0 ? -1 : close(fd);
}

static int tear_down(void **state) {
    (void)state;
    unlink(scratch);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files_give_pillow_s_pixels), cmocka_unit_test(cut_files_are_refused),
        cmocka_unit_test(damaged_files_do_no_harm),   cmocka_unit_test(other_things_are_refused),
        cmocka_unit_test(what_is_written_is_read),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
