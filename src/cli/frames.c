#include "answer/text.h"
#include "base/error.h"
#include "base/file.h"
#include "cli/cli.h"
#include "cli/options.h"
#include "image/files.h"
#include "image/tiles.h"
#include "run/clip.h"
#include "run/npy.h"

#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static json_t *describe(const char *path, const lb_clip *clip) {
    const lb_frames *f = clip->frames;
    json_t *frames = json_array();
    for (int i = 0; i < f->n_frames; i++)
        json_array_append_new(frames, json_pack("{s:I, s:f, s:i, s:i, s:i}", "index", (json_int_t)f->index[i], "time_s",
                                                f->time_s[i], "width", f->width, "height", f->height, "tiles",
                                                clip->tiles_per_frame[i]));
    return json_pack("{s:s, s:I, s:f, s:i, s:i, s:o}", "video", path, "n_total", (json_int_t)f->n_total, "fps", f->fps,
                     "tile_size", clip->tile_size, "n_tiles", clip->n_tiles, "frames", frames);
}

static lb_status write_png(const char *folder, const char *name, lb_image_view view, lb_error *error) {
    char path[PATH_MAX];
    if ((size_t)snprintf(path, sizeof path, "%s/%s", folder, name) >= sizeof path)
        return lb_error_set(error, LB_STATUS_IO, "%s/%s: the path is too long", folder, name);
    return lb_image_write_png(path, view, error);
}

static lb_status write_all(const char *folder, const lb_clip *clip, lb_error *error) {
    const int s = clip->tile_size;
    const uint8_t *tile = clip->tiles;
    char name[64];
    lb_status status = lb_folder_make(folder, error);
    for (int i = 0; i < clip->frames->n_frames && status == LB_STATUS_OK; i++) {
        snprintf(name, sizeof name, "frame_%02d.png", i);
        status = write_png(folder, name, lb_frames_view(clip->frames, i), error);
        for (int k = 0; k < clip->tiles_per_frame[i] && status == LB_STATUS_OK; k++) {
            snprintf(name, sizeof name, "frame_%02d_tile_%02d.png", i, k);
            status = write_png(folder, name, (lb_image_view){tile, s, s, (size_t)s * 3}, error);
            tile += (size_t)s * (size_t)s * 3;
        }
    }
    return status;
}

int lb_cli_frames(int argc, char **argv) {
    lb_clip_params p = {.frames = lb_frames_default_params(), .max_tiles = 1, .tile_size = 448};
    const char *out = NULL;
    double from_s = -INFINITY, to_s = INFINITY;
    bool verbose = false;
    const lb_option options[] = {
        {"num-frames", 'n', "num_frames", LB_OPTION_INT, &p.frames.n_frames, 1, 1024, "N", "frames, spread evenly"},
        {"max-tiles", 0, NULL, LB_OPTION_INT, &p.max_tiles, 1, LB_TILES_MAX, "N", "tiles a frame at most"},
        {"tile-size", 0, NULL, LB_OPTION_INT, &p.tile_size, 14, 4096, "N", "pixels a side of a tile"},
        {"from", 0, NULL, LB_OPTION_SECONDS, &from_s, 0, 0, "S", "frames from this second on"},
        {"to", 0, NULL, LB_OPTION_SECONDS, &to_s, 0, 0, "S", "frames up to this second"},
        {"decode-timeout", 0, NULL, LB_OPTION_SECONDS, &p.frames.timeout_s, 0, 0, "S",
         "give up after so long for a frame"},
        {"out", 'o', NULL, LB_OPTION_TEXT, &out, 0, 0, "DIR",
         "write frame_00.png, frame_00_tile_00.png, ... and frames.json there"},
        {"verbose", 'v', NULL, LB_OPTION_TRUE, &verbose, 0, 0, NULL, "say how long each stage takes"},
    };
    const size_t n_options = sizeof options / sizeof *options;
    lb_error error = {0};
    const char *operand;
    const int ended = lb_cli_begin(
        options, n_options, argc, argv,
        "lowbeam frames VIDEO [options]\n\nThe frames and tiles of a video (or a folder of PNG and JPEG files) "
        "that "
        "the model would see,\nas JSON on stdout and, with --out, as pictures.\n\n",
        NULL, "frames: which video? lowbeam frames VIDEO; see lowbeam frames --help", &operand);
    if (ended >= 0)
        return ended;
    if (from_s >= to_s)
        return lb_cli_fail("--from: is not below --to", LB_EXIT_USAGE);
    if (p.frames.timeout_s <= 0)
        return lb_cli_fail("--decode-timeout: takes seconds above 0", LB_EXIT_USAGE);
    p.frames.bounded = isfinite(from_s) || isfinite(to_s);
    p.frames.from_s = from_s;
    p.frames.to_s = to_s;
    p.frames.cancel = &lb_cli_cancelled;
    lb_cli_log(verbose);
    lb_cli_catch_signals();

    lb_clip *clip;
    lb_status status = lb_clip_prepare(operand, &p, &clip, &error);
    if (status != LB_STATUS_OK)
        return lb_cli_fail(error.message, status == LB_STATUS_INTERRUPTED ? LB_EXIT_INTERRUPTED : LB_EXIT_NOTHING);
    char *path = lb_text_decode(operand, strlen(operand)); /* JSON is UTF-8, a path may be anything */
    json_t *description = path ? describe(path, clip) : NULL;
    char *text = description ? json_dumps(description, JSON_INDENT(1) | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(description);
    free(path);
    if (!text)
        status = lb_error_set(&error, LB_STATUS_OUT_OF_MEMORY, "%s: no memory for its description", operand);
    if (status == LB_STATUS_OK && out) {
        status = write_all(out, clip, &error);
        if (status == LB_STATUS_OK)
            status = lb_text_write(out, "frames.json", text, strlen(text), &error);
    } else if (status == LB_STATUS_OK && (puts(text) == EOF || fflush(stdout) != 0)) {
        status = lb_error_set(&error, LB_STATUS_IO, "stdout: %s", strerror(errno));
    }
    free(text);
    lb_clip_free(clip);
    return status == LB_STATUS_OK ? LB_EXIT_OK : lb_cli_fail(error.message, LB_EXIT_NOTHING);
}
