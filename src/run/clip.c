#include "run/clip.h"

#include "base/error.h"
#include "base/log.h"
#include "base/time.h"
#include "detector/preprocess.h"
#include "image/tiles.h"
#include "memory/ledger.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Memory that another process can map. */
static lb_status share(const char *name, size_t bytes, int *fd, uint8_t **data, lb_error *error) {
    *fd = memfd_create(name, MFD_CLOEXEC);
    void *map = MAP_FAILED;
    if (*fd >= 0 && ftruncate(*fd, (off_t)bytes) == 0)
        map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0);
    if (map == MAP_FAILED)
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory for tiles and pictures (%zu MiB): %s",
                            bytes >> 20, strerror(errno));
    *data = map;
    lb_ledger_add(LB_COMPONENT_FRAMES, bytes);
    return LB_STATUS_OK;
}

static lb_status alloc_tiles(lb_clip *clip, uint8_t **tiles, lb_error *error) {
    clip->tiles_bytes = (size_t)clip->tile_size * (size_t)clip->tile_size * 3 * (size_t)clip->n_tiles;
    lb_status status = share("lowbeam-tiles", clip->tiles_bytes, &clip->tiles_fd, tiles, error);
    clip->tiles = status == LB_STATUS_OK ? *tiles : NULL;
    return status;
}

static bool repeats(const lb_frames *frames, int i) {
    return i > 0 && frames->index[i] == frames->index[i - 1];
}

/* All frames of a video have one size, so one grid; a frame that repeats the one before (a video with fewer frames than
 * asked) has its tiles copied. */
static lb_status cut(lb_clip *clip, lb_tile_grid grid, uint8_t *tiles, lb_error *error) {
    const lb_frames *frames = clip->frames;
    const size_t bytes =
        (size_t)clip->tile_size * (size_t)clip->tile_size * 3 * (size_t)grid.n_tiles; /* of one frame */
    lb_status status = LB_STATUS_OK;
    for (int i = 0; i < frames->n_frames && status == LB_STATUS_OK; i++) {
        uint8_t *to = tiles + (size_t)i * bytes;
        if (repeats(frames, i))
            memcpy(to, to - bytes, bytes);
        else
            status = lb_tiles_cut(lb_frames_view(frames, i), grid, clip->tile_size, to, error);
        clip->tiles_per_frame[i] = grid.n_tiles;
    }
    return status;
}

/* What the detector sees: a picture of each frame that is not the one before once more. */
static lb_status resize(lb_clip *clip, const lb_clip_params *params, lb_error *error) {
    const lb_frames *frames = clip->frames;
    lb_resized *r = &clip->resized;
    lb_preprocess_params edges = lb_preprocess_default_params();
    edges.shortest_edge = params->shortest_edge;
    edges.longest_edge = params->longest_edge;
    int *of_frame = calloc((size_t)frames->n_frames, sizeof *of_frame);
    r->of_frame = of_frame;
    if (!of_frame)
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory");
    for (int i = 0; i < frames->n_frames; i++) {
        r->n += !repeats(frames, i);
        of_frame[i] = r->n - 1;
    }
    lb_status status = lb_preprocess_size(&edges, frames->width, frames->height, &r->width, &r->height, error);
    if (status != LB_STATUS_OK)
        return status;
    const size_t bytes = (size_t)r->width * (size_t)r->height * 3;
    uint8_t *data = NULL;
    clip->resized_bytes = bytes * (size_t)r->n;
    status = share("lowbeam-resized", clip->resized_bytes, &clip->resized_fd, &data, error);
    r->data = data;
    for (int i = 0; i < frames->n_frames && status == LB_STATUS_OK; i++)
        if (!repeats(frames, i))
            status = lb_preprocess_resize(lb_frames_view(frames, i), r->width, r->height,
                                          data + (size_t)of_frame[i] * bytes, error);
    return status;
}

lb_status lb_clip_prepare(const char *path, const lb_clip_params *params, lb_clip **out, lb_error *error) {
    *out = NULL;
    lb_clip *clip = calloc(1, sizeof *clip);
    if (!clip)
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "%s: no memory", path);
    clip->tiles_fd = clip->resized_fd = clip->seen_fd = -1;
    clip->path = strdup(path);
    if (!clip->path) {
        lb_clip_free(clip);
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "%s: no memory", path);
    }
    lb_ledger_video(path);
    clip->tile_size = params->tile_size;
    lb_tile_grid grid;
    uint8_t *tiles = NULL;
    lb_status status = lb_frames_read(path, &params->frames, &clip->frames, error);
    if (status != LB_STATUS_OK) {
        lb_clip_free(clip);
        return status;
    }
    double start = lb_now_s();
    const lb_frames *frames = clip->frames;
    lb_ledger_add(LB_COMPONENT_FRAMES, frames->data_bytes);
    clip->tiles_per_frame = calloc((size_t)frames->n_frames, sizeof *clip->tiles_per_frame);
    status = clip->tiles_per_frame ? LB_STATUS_OK : lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory");
    if (status == LB_STATUS_OK)
        status = lb_tile_grid_choose(frames->width, frames->height, params->max_tiles, params->tile_size, &grid, error);
    if (status == LB_STATUS_OK) {
        clip->n_tiles = grid.n_tiles * frames->n_frames;
        status = alloc_tiles(clip, &tiles, error);
    }
    if (status == LB_STATUS_OK)
        status = cut(clip, grid, tiles, error);
    if (status == LB_STATUS_OK && params->shortest_edge > 0)
        status = resize(clip, params, error);
    clip->tile_time_s = lb_now_s() - start;
    if (status != LB_STATUS_OK) {
        lb_error_context(error, "%s", path);
        lb_clip_free(clip);
        return status;
    }
    lb_log(LB_LOG_INFO, "video", "clip=%s frames=%d size=%dx%d tiles=%d decode_s=%.3f tile_s=%.3f", path,
           frames->n_frames, frames->width, frames->height, clip->n_tiles, frames->decode_time_s, clip->tile_time_s);
    *out = clip;
    return LB_STATUS_OK;
}

lb_clip *lb_clip_seen(int fd, int n_frames) {
    lb_clip *clip = calloc(1, sizeof *clip);
    if (!clip) {
        close(fd);
        return NULL;
    }
    clip->tiles_fd = clip->resized_fd = -1;
    clip->seen_fd = fd;
    clip->n_seen_frames = n_frames;
    return clip;
}

lb_status lb_clip_bytes(int width, int height, const lb_clip_params *params, size_t *bytes, lb_error *error) {
    lb_tile_grid grid;
    lb_preprocess_params edges = lb_preprocess_default_params();
    edges.shortest_edge = params->shortest_edge;
    edges.longest_edge = params->longest_edge;
    int w = 0, h = 0;
    lb_status status = lb_tile_grid_choose(width, height, params->max_tiles, params->tile_size, &grid, error);
    if (status == LB_STATUS_OK && params->shortest_edge > 0)
        status = lb_preprocess_size(&edges, width, height, &w, &h, error);
    if (status != LB_STATUS_OK)
        return status;
    const size_t tile = (size_t)params->tile_size * (size_t)params->tile_size;
    *bytes = (size_t)params->frames.n_frames * 3 *
             ((size_t)width * (size_t)height + tile * (size_t)grid.n_tiles + (size_t)w * (size_t)h);
    return LB_STATUS_OK;
}

static void unshare(const void *data, size_t bytes, int fd) {
    if (data) {
        munmap((void *)data, bytes);
        lb_ledger_sub(LB_COMPONENT_FRAMES, bytes);
    }
    if (fd >= 0)
        close(fd);
}

void lb_clip_free(lb_clip *clip) {
    if (!clip)
        return;
    lb_ledger_video(clip->path ? clip->path : "");
    unshare(clip->tiles, clip->tiles_bytes, clip->tiles_fd);
    unshare(clip->resized.data, clip->resized_bytes, clip->resized_fd);
    free((void *)clip->resized.of_frame);
    if (clip->seen_fd >= 0)
        close(clip->seen_fd);
    if (clip->frames)
        lb_ledger_sub(LB_COMPONENT_FRAMES, clip->frames->data_bytes);
    lb_frames_free(clip->frames);
    free(clip->tiles_per_frame);
    free(clip->path);
    free(clip);
    lb_ledger_video("");
}
