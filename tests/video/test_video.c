/* lb_frames_read on the tiny clips of ref/ (tools/make_video_refs.py), and on everything that can go wrong with a video
 * or its decoder. Runs in this folder, with $LOWBEAM_DECODE naming the decoder. */
#include "video/video.h"

#include "base/time.h"
#include "image/files.h"
#include "video/protocol.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

static char folder[] = "/tmp/lowbeam-video-XXXXXX";

static const char *in_folder(const char *name) {
    static char path[4][512];
    static int next;
    char *p = path[next++ % 4];
    snprintf(p, sizeof path[0], "%s/%s", folder, name);
    return p;
}

static void write_file(const char *path, const void *bytes, size_t n) {
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, n, file), n);
    assert_int_equal(fclose(file), 0);
}

static int count_descriptors(void) {
    int n = 0;
    for (int fd = 0; fd < 256; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

/* Reads path, expects this status and a message with both words in it, and that nothing is left behind. */
static void expect_failure(const char *path, const lb_frames_params *params, lb_status status, const char *word,
                           const char *other_word) {
    const int descriptors = count_descriptors();
    lb_frames *frames = (lb_frames *)1;
    lb_error error = {0};
    const lb_status got = lb_frames_read(path, params, &frames, &error);
    if (got != status || !strstr(error.message, word) || !strstr(error.message, other_word))
        fail_msg("%s: %s \"%s\", expected %s with \"%s\" and \"%s\"", path, lb_status_name(got), error.message,
                 lb_status_name(status), word, other_word);
    assert_null(frames);
    assert_int_equal(error.status, status);
    assert_int_equal(count_descriptors(), descriptors);
    assert_true(waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD); /* no decoder is left */
}

/* ref/ ------------------------------------------------------------------------------------------------------------- */

typedef struct reference {
    int64_t n_total, n, width, height;
    double fps;
    int64_t index[16];
    double time_s[16];
    uint8_t *pixels;
} reference;

static void read_reference(const char *path, reference *r) {
    char head[64];
    FILE *file = fopen(path, "rb");
    if (!file)
        fail_msg("%s: %s; tools/make_video_refs.py makes it", path, strerror(errno));
    assert_int_equal(fread(head, 1, sizeof head, file), sizeof head);
    assert_memory_equal(head, "lowbeam-video-1\n", 16);
    assert_int_equal(fread(&r->n_total, 8, 4, file), 4);
    assert_int_equal(fread(&r->fps, 8, 1, file), 1);
    assert_in_range(r->n, 1, 16);
    assert_int_equal(fread(r->index, 8, (size_t)r->n, file), r->n);
    assert_int_equal(fread(r->time_s, 8, (size_t)r->n, file), r->n);
    const size_t bytes = (size_t)(r->n * r->width * r->height * 3);
    r->pixels = malloc(bytes);
    assert_non_null(r->pixels);
    assert_int_equal(fread(r->pixels, 1, bytes, file), bytes);
    fclose(file);
}

/* The limits of tests/checks/check_frames.py, and why they are so, stand there. */
static void compare_pixels(const char *name, const lb_frames *frames, const reference *r) {
    double sum = 0;
    size_t far = 0, worst_at = 0;
    int worst = 0;
    for (size_t i = 0; i < frames->data_bytes; i++) {
        const int d = abs(frames->data[i] - r->pixels[i]);
        sum += d;
        far += d > 8;
        if (d > worst) {
            worst = d;
            worst_at = i;
        }
    }
    const double mean = sum / (double)frames->data_bytes, share = 1 - (double)far / (double)frames->data_bytes;
    printf("  %s: mean %.4f, largest %d at byte %zu, within 8 levels %.4f %%\n", name, mean, worst, worst_at,
           100 * share);
    if (mean > 1.0 || share < 0.999)
        fail_msg("%s: pixels differ from decord's", name);
}

static void check_clip(void **state) {
    const char *name = *state;
    char path[256];
    reference r = {0};
    snprintf(path, sizeof path, "ref/%s.ref", name);
    read_reference(path, &r);
    lb_frames_params params = lb_frames_default_params();
    params.n_frames = (int)r.n;
    lb_frames *frames;
    lb_error error = {0};
    snprintf(path, sizeof path, "ref/%s", name);
    if (lb_frames_read(path, &params, &frames, &error) != LB_STATUS_OK)
        fail_msg("%s", error.message);
    assert_int_equal(frames->n_total, r.n_total);
    assert_int_equal(frames->width, r.width);
    assert_int_equal(frames->height, r.height);
    assert_true(fabs(frames->fps - r.fps) < 1e-6 * r.fps);
    for (int i = 0; i < frames->n_frames; i++) {
        assert_int_equal(frames->index[i], r.index[i]);
        if (fabs(frames->time_s[i] - r.time_s[i]) > 1e-3) /* decord keeps seconds in 32-bit floats */
            fail_msg("%s: frame %d at %.6f s, expected %.6f s", name, i, frames->time_s[i], r.time_s[i]);
    }
    compare_pixels(name, frames, &r);
    lb_frames_free(frames);
    free(r.pixels);
}

/* Every frame of a clip by one call, and a few by others, are the same frames. */
static void any_selection_gives_the_same_frames(void **state) {
    const char *name = *state;
    lb_frames_params params = lb_frames_default_params();
    lb_frames *all, *some;
    lb_error error = {0};
    params.n_frames = 120; /* more than there are: each is met */
    if (lb_frames_read(name, &params, &all, &error) != LB_STATUS_OK)
        fail_msg("%s", error.message);
    for (int n = 1; n < 8; n += 2) {
        params.n_frames = n;
        assert_int_equal(lb_frames_read(name, &params, &some, &error), LB_STATUS_OK);
        for (int i = 0; i < n; i++) {
            int same = 0;
            while (same < all->n_frames && all->index[same] != some->index[i])
                same++;
            assert_true(same < all->n_frames);
            const size_t bytes = all->data_bytes / 120;
            if (memcmp(lb_frames_view(all, same).data, lb_frames_view(some, i).data, bytes))
                fail_msg("%s: frame %lld differs when %d are read", name, (long long)some->index[i], n);
        }
        lb_frames_free(some);
    }
    lb_frames_free(all);
}

static void seconds_bound_the_frames(void **state) {
    (void)state;
    lb_frames_params params = lb_frames_default_params();
    params.n_frames = 4;
    params.bounded = true;
    params.from_s = 1;
    params.to_s = 2;
    lb_frames *frames;
    assert_int_equal(lb_frames_read("ref/h264_long_gop.mp4", &params, &frames, NULL), LB_STATUS_OK);
    const int64_t expected[] = {33, 41, 48, 55}; /* 30 + 3.75 + round(7.5 i), halves to even */
    for (int i = 0; i < 4; i++) {
        assert_int_equal(frames->index[i], expected[i]);
        assert_true(fabs(frames->time_s[i] - (double)expected[i] / 30) < 1e-6);
    }
    lb_frames_free(frames);
    params.from_s = 100;
    params.to_s = INFINITY;
    expect_failure("ref/h264_long_gop.mp4", &params, LB_STATUS_INVALID_ARGUMENT, "outside", "4.00 s");
}

/* Files ------------------------------------------------------------------------------------------------------------ */

static void broken_files_are_named_with_the_cause(void **state) {
    (void)state;
    const lb_frames_params params = lb_frames_default_params();
    expect_failure("ref/audio_only.m4a", &params, LB_STATUS_FORMAT, "audio_only.m4a: ", "no video stream");
    expect_failure("ref/truncated.mp4", &params, LB_STATUS_FORMAT, "truncated.mp4: ", "of its 30 frames");
    expect_failure("ref/no_index.mp4", &params, LB_STATUS_FORMAT, "no_index.mp4: ", "not a video");
    expect_failure(in_folder("missing.mp4"), &params, LB_STATUS_NOT_FOUND, "missing.mp4: ", "No such file");
    write_file(in_folder("empty.mp4"), "", 0);
    expect_failure(in_folder("empty.mp4"), &params, LB_STATUS_FORMAT, "empty.mp4: ", "empty");
    char noise[5000];
    for (size_t i = 0; i < sizeof noise; i++)
        noise[i] = (char)(i * i * 31 >> 3);
    write_file(in_folder("noise.mp4"), noise, sizeof noise);
    expect_failure(in_folder("noise.mp4"), &params, LB_STATUS_FORMAT, "noise.mp4: ", "");
    static const char playlist[] = "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n/etc/passwd\n#EXT-X-ENDLIST\n";
    write_file(in_folder("list.m3u8"), playlist, sizeof playlist - 1);
    expect_failure(in_folder("list.m3u8"), &params, LB_STATUS_FORMAT, "list.m3u8: ", "not a video");
}

static void what_is_no_file_is_refused_at_once(void **state) {
    (void)state;
    const lb_frames_params params = lb_frames_default_params();
    assert_int_equal(mkfifo(in_folder("fifo.mp4"), 0600), 0);
    const double t0 = lb_now_s();
    expect_failure(in_folder("fifo.mp4"), &params, LB_STATUS_REFUSED, "fifo.mp4: ", "FIFO");
    expect_failure("/dev/zero", &params, LB_STATUS_REFUSED, "/dev/zero: ", "device");
    assert_true(lb_now_s() - t0 < 1);
}

static void limits_hold(void **state) {
    (void)state;
    lb_frames_params params = lb_frames_default_params();
    params.max_bytes = 8 * 64 * 48 * 3 - 1;
    expect_failure("ref/h264_bframes.mp4", &params, LB_STATUS_OUT_OF_MEMORY, "h264_bframes.mp4: ", "64x48");
    params = lb_frames_default_params();
    params.n_frames = 1025;
    expect_failure("ref/h264_bframes.mp4", &params, LB_STATUS_INVALID_ARGUMENT, "1025", "1024");
}

/* Bits of a clip turned over here and there: any answer of the decoder is right, as long as it gives one. */
static void damaged_clips_never_hang(void **state) {
    (void)state;
    static uint8_t clip[1 << 16];
    FILE *file = fopen("ref/h264_bframes.mp4", "rb");
    assert_non_null(file);
    const size_t n = fread(clip, 1, sizeof clip, file);
    fclose(file);
    lb_frames_params params = lb_frames_default_params();
    for (size_t seed = 0; seed < 40; seed++) {
        static uint8_t damaged[sizeof clip];
        memcpy(damaged, clip, n);
        for (size_t i = 0; i < 8; i++)
            damaged[(seed * 7919 + i * 104729 + seed * i * 31) % n] ^= (uint8_t)(1u << (i % 8));
        write_file(in_folder("damaged.mp4"), damaged, n);
        lb_frames *frames;
        lb_error error = {0};
        const lb_status status = lb_frames_read(in_folder("damaged.mp4"), &params, &frames, &error);
        if (status == LB_STATUS_TIMEOUT || status == LB_STATUS_INTERNAL || status == LB_STATUS_CHILD_DIED)
            fail_msg("seed %zu: %s", seed, error.message);
        lb_frames_free(frames);
    }
}

/* Decoders --------------------------------------------------------------------------------------------------------- */

/* A shell script in the decoder's place. */
static lb_frames_params with_script(const char *body) {
    static char path[512], text[2048];
    snprintf(path, sizeof path, "%s", in_folder("decoder.sh"));
    snprintf(text, sizeof text, "#!/bin/sh\n%s\n", body);
    write_file(path, text, strlen(text));
    assert_int_equal(chmod(path, 0700), 0);
    lb_frames_params params = lb_frames_default_params();
    params.decoder_path = path;
    return params;
}

static void hanging_decoder_is_stopped(void **state) {
    (void)state;
    lb_frames_params params = with_script("sleep 60 & sleep 60");
    params.timeout_s = 0.3;
    const double t0 = lb_now_s();
    expect_failure("ref/mjpeg.mov", &params, LB_STATUS_TIMEOUT, "mjpeg.mov: ", "no progress for 0.3 s");
    assert_true(lb_now_s() - t0 < 3);
}

static void *set_soon(void *flag) {
    usleep(150000);
    *(atomic_bool *)flag = true;
    return NULL;
}

static void cancel_stops_the_decoder(void **state) {
    (void)state;
    atomic_bool cancel = false;
    lb_frames_params params = with_script("sleep 60");
    params.cancel = &cancel;
    pthread_t thread;
    const double t0 = lb_now_s();
    assert_int_equal(pthread_create(&thread, NULL, set_soon, (void *)&cancel), 0);
    expect_failure("ref/mjpeg.mov", &params, LB_STATUS_INTERRUPTED, "mjpeg.mov: ", "interrupted");
    assert_true(lb_now_s() - t0 < 3);
    pthread_join(thread, NULL);
}

static void dying_decoder_is_named(void **state) {
    (void)state;
    lb_frames_params params = with_script("kill -SEGV $$");
    expect_failure("ref/mjpeg.mov", &params, LB_STATUS_CHILD_DIED, "mjpeg.mov: ", "SIGSEGV");
    params = with_script("sleep 60 & kill -ABRT $$"); /* the sleep holds the socket open */
    params.timeout_s = 10;
    const double t0 = lb_now_s();
    expect_failure("ref/mjpeg.mov", &params, LB_STATUS_CHILD_DIED, "mjpeg.mov: ", "SIGABRT");
    assert_true(lb_now_s() - t0 < 5);
    params = with_script("echo garbage; echo garbage >&2; exit 3");
    expect_failure("ref/mjpeg.mov", &params, LB_STATUS_CHILD_DIED, "mjpeg.mov: ", "exit status 3");
    params.decoder_path = "/nonexistent/lowbeam-decode";
    expect_failure("ref/mjpeg.mov", &params, LB_STATUS_NOT_FOUND, "/nonexistent/lowbeam-decode", "LOWBEAM_DECODE");
}

static void decoder_is_not_believed(void **state) {
    (void)state;
    lb_frames_params params = with_script("echo garbage >&3; sleep 60");
    expect_failure("ref/mjpeg.mov", &params, LB_STATUS_CHILD_DIED, "mjpeg.mov: ", "does not speak");
    params = with_script("head -c 100000 /dev/zero | tr '\\0' x | dd bs=100000 iflag=fullblock >&3; sleep 60");
    expect_failure("ref/mjpeg.mov", &params, LB_STATUS_CHILD_DIED, "mjpeg.mov: ", "does not speak");

    const lb_decode_reply good = {.magic = LB_DECODE_MAGIC,
                                  .version = LB_DECODE_VERSION,
                                  .kind = LB_DECODE_HEADER,
                                  .width = 4,
                                  .height = 4,
                                  .n_total = 8,
                                  .fps = 30};
    lb_decode_reply bad[8] = {good, good, good, good, good, good, good, good};
    bad[0].width = 0;
    bad[1].width = 1 << 30;
    bad[2].height = -4;
    bad[3].n_total = 0;
    bad[4].n_total = INT64_MAX;
    bad[5].fps = NAN;
    bad[6].kind = LB_DECODE_DONE;
    bad[7].kind = 77;
    char body[600];
    snprintf(body, sizeof body, "cat %s >&3; sleep 60", in_folder("reply"));
    for (int i = 0; i < 8; i++) {
        write_file(in_folder("reply"), &bad[i], sizeof bad[i]);
        params = with_script(body);
        expect_failure("ref/mjpeg.mov", &params, LB_STATUS_CHILD_DIED, "mjpeg.mov: ", "makes no sense");
    }
    lb_decode_reply frame = good;
    frame.kind = LB_DECODE_FRAME;
    frame.slot = 5;
    write_file(in_folder("reply"), &good, sizeof good);
    write_file(in_folder("frame"), &frame, sizeof frame);
    snprintf(body, sizeof body, "cat %s >&3; cat %s >&3; sleep 60", in_folder("reply"), in_folder("frame"));
    params = with_script(body);
    expect_failure("ref/mjpeg.mov", &params, LB_STATUS_CHILD_DIED, "mjpeg.mov: ", "slot 5");
    lb_decode_reply failure = good;
    failure.kind = LB_DECODE_ERROR;
    failure.status = 12345;
    memset(failure.message, 'm', sizeof failure.message); /* no end */
    write_file(in_folder("reply"), &failure, sizeof failure);
    snprintf(body, sizeof body, "cat %s >&3; sleep 60", in_folder("reply"));
    params = with_script(body);
    expect_failure("ref/mjpeg.mov", &params, LB_STATUS_INTERNAL, "mjpeg.mov: ", "mmm");
    memset(failure.message, 0,
           sizeof failure.message); /* fuzz_protocol found that this left an error without a cause */
    write_file(in_folder("reply"), &failure, sizeof failure);
    expect_failure("ref/mjpeg.mov", &params, LB_STATUS_INTERNAL, "mjpeg.mov: ", "did not say why");
    memcpy(failure.message, "codec \xff\xc3.", 9); /* bytes of the file, which need not be UTF-8 */
    write_file(in_folder("reply"), &failure, sizeof failure);
    expect_failure("ref/mjpeg.mov", &params, LB_STATUS_INTERNAL, "mjpeg.mov: ", "codec ??.");
}

/* Pictures --------------------------------------------------------------------------------------------------------- */

static void write_picture(const char *name, int width, int height, uint8_t value) {
    uint8_t pixels[16 * 16 * 3];
    memset(pixels, value, sizeof pixels);
    const lb_image_view view = {.data = pixels, .width = width, .height = height, .stride = 3 * (size_t)width};
    assert_int_equal(lb_image_write_png(in_folder(name), view, NULL), LB_STATUS_OK);
}

static void folder_of_pictures_is_a_video(void **state) {
    (void)state;
    lb_frames_params params = lb_frames_default_params();
    params.decoder_path = "/nonexistent/lowbeam-decode"; /* not needed */
    params.n_frames = 3;
    assert_int_equal(mkdir(in_folder("pictures"), 0700), 0);
    expect_failure(in_folder("pictures"), &params, LB_STATUS_FORMAT, "pictures: ", "no .png, .jpg or .jpeg");
    write_file(in_folder("pictures/notes.txt"), "x", 1);
    write_file(in_folder("pictures/._a.png"), "x", 1);
    write_picture("pictures/b.PNG", 9, 7, 11); /* bytes: 'B' < 'a' < 'b' < 0xc3 */
    write_picture("pictures/\xc3\xa9.png", 9, 7, 13);
    write_picture("pictures/a.png", 9, 7, 10);
    write_picture("pictures/c.png", 9, 7, 12);
    write_picture("pictures/B.png", 9, 7, 9);
    lb_frames *frames;
    lb_error error = {0};
    params.n_frames = 5;
    params.image_fps = 2;
    if (lb_frames_read(in_folder("pictures"), &params, &frames, &error) != LB_STATUS_OK)
        fail_msg("%s", error.message);
    assert_int_equal(frames->n_total, 5);
    assert_int_equal(frames->width, 9);
    assert_int_equal(frames->height, 7);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(lb_frames_view(frames, i).data[0], 9 + frames->index[i]);
        assert_int_equal(lb_frames_view(frames, i).data[9 * 7 * 3 - 1], 9 + frames->index[i]);
        assert_true(frames->time_s[i] == (double)frames->index[i] / 2);
    }
    lb_frames_free(frames);

    params.n_frames = 2;
    assert_int_equal(lb_frames_read(in_folder("pictures/c.png"), &params, &frames, NULL), LB_STATUS_OK);
    assert_int_equal(frames->n_total, 1);
    assert_int_equal(lb_frames_view(frames, 1).data[5], 12);
    lb_frames_free(frames);

    params.n_frames = 8;
    write_picture("pictures/c.png", 7, 9, 12);
    expect_failure(in_folder("pictures"), &params, LB_STATUS_FORMAT, "c.png is 7x9", "B.png is 9x7");
    write_file(in_folder("pictures/c.png"), "no picture", 10);
    expect_failure(in_folder("pictures"), &params, LB_STATUS_FORMAT, "pictures/c.png: ", "neither a PNG nor");
}

static int set_up(void **state) {
    (void)state;
    if (!getenv("LOWBEAM_DECODE"))
        printf("note: LOWBEAM_DECODE is not set; the decoder beside this program or in PATH is used\n");
    return mkdtemp(folder) ? 0 : -1;
}

static int tear_down(void **state) {
    (void)state;
    char command[600];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    return system(command);
}

int main(void) {
#define CLIP(name)                                                                                                     \
    { name, check_clip, NULL, NULL, (void *)name }
#define SAME(name)                                                                                                     \
    { "same frames of " name, any_selection_gives_the_same_frames, NULL, NULL, (void *)name }
    const struct CMUnitTest tests[] = {
        CLIP("h264_bframes.mp4"),
        CLIP("h264_long_gop.mp4"),
        CLIP("h264_open_gop.mp4"),
        CLIP("h264_vfr.mp4"),
        CLIP("h264_422_10bit.mp4"),
        CLIP("h264_709_full.mp4"),
        CLIP("h264_rotated.mp4"),
        CLIP("h264_short.mp4"),
        CLIP("h264.ts"),
        CLIP("hevc.mkv"),
        CLIP("vp9_odd.webm"),
        CLIP("av1.mp4"),
        CLIP("mpeg4_bframes.avi"),
        CLIP("mjpeg.mov"),
        SAME("ref/h264_bframes.mp4"),
        SAME("ref/h264_long_gop.mp4"),
        SAME("ref/h264_open_gop.mp4"),
        SAME("ref/h264.ts"),
        SAME("ref/hevc.mkv"),
        SAME("ref/av1.mp4"),
        SAME("ref/mpeg4_bframes.avi"),
        cmocka_unit_test(seconds_bound_the_frames),
        cmocka_unit_test(broken_files_are_named_with_the_cause),
        cmocka_unit_test(what_is_no_file_is_refused_at_once),
        cmocka_unit_test(limits_hold),
        cmocka_unit_test(damaged_clips_never_hang),
        cmocka_unit_test(hanging_decoder_is_stopped),
        cmocka_unit_test(cancel_stops_the_decoder),
        cmocka_unit_test(dying_decoder_is_named),
        cmocka_unit_test(decoder_is_not_believed),
        cmocka_unit_test(folder_of_pictures_is_a_video),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
