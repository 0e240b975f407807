/* libFuzzer entry: a folder of up to three files, with 0xff 0x00 0xfe between them, as a video: an error that names the
 * file, or frames of one size that are there to their last byte. The first byte says what the names end with.
 * sources: src/video/pictures.c src/video/read.c src/video/indices.c src/image/files.c src/image/png.c src/image/jpeg.c
 */
#include "fuzz.h"
#include "video/video_internal.h"

#include "base/error.h"

#include <fcntl.h>
#include <sys/stat.h>

lb_status lb_decoder_run(int fd, const char *path, const lb_frames_params *params, lb_frames *frames, lb_error *error) {
    (void)fd, (void)path, (void)params, (void)frames;
    return lb_error_set(error, LB_STATUS_INTERNAL, "a picture went to the decoder");
}

static const char *const endings[] = {"png", "jpg", "JPEG", "PnG"};
static char folder[64], names[3][80];

static void make_folder(void) {
    /* In memory where the system has it: a file's blocks need not reach a disk. */
    snprintf(folder, sizeof folder, "%s/lowbeam-fuzz-XXXXXX", access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
    LB_FUZZ_ASSERT(mkdtemp(folder));
}

static void write_file(const char *path, const uint8_t *bytes, size_t n) {
    const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    LB_FUZZ_ASSERT(fd >= 0 && write(fd, bytes, n) == (ssize_t)n);
    close(fd);
}

static size_t up_to_separator(const uint8_t *data, size_t size, size_t *past) {
    static const uint8_t separator[] = {0xff, 0x00, 0xfe};
    const uint8_t *at = memmem(data, size, separator, sizeof separator);
    *past = at ? (size_t)(at - data) + sizeof separator : size;
    return at ? (size_t)(at - data) : size;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static uint8_t copy[1 << 16];
    if (!folder[0])
        make_folder();
    const uint8_t kinds = size ? data[0] : 0;
    int n = 0;
    for (size_t at = size > 0; n == 0 || (n < 3 && at < size); n++) {
        size_t past;
        const size_t length = up_to_separator(data + at, size - at, &past);
        snprintf(names[n], sizeof names[n], "%s/%d.%s", folder, n, endings[(kinds >> (2 * n)) & 3]);
        write_file(names[n], data + at, length);
        at += past;
    }
    lb_frames_params params = lb_frames_default_params();
    params.n_frames = n + (kinds >> 6);
    params.max_bytes = 1 << 20;
    lb_frames *frames;
    lb_error error = {0};
    if (lb_frames_read(folder, &params, &frames, &error) == LB_STATUS_OK) {
        LB_FUZZ_ASSERT(frames->n_total == n && frames->data_bytes <= params.max_bytes);
        for (int i = 0; i < frames->n_frames; i++) {
            const lb_image_view view = lb_frames_view(frames, i);
            const size_t bytes = view.stride * (size_t)view.height;
            memcpy(copy, view.data + bytes - (bytes < sizeof copy ? bytes : sizeof copy),
                   bytes < sizeof copy ? bytes : sizeof copy);
        }
    } else {
        LB_FUZZ_ASSERT(!frames && strstr(error.message, folder) && !strpbrk(error.message, "\n\r\033"));
        LB_FUZZ_ASSERT(error.status != LB_STATUS_INTERNAL && error.status != LB_STATUS_INVALID_ARGUMENT);
    }
    lb_frames_free(frames);
    for (int i = 0; i < n; i++)
        unlink(names[i]);
    return 0;
}
