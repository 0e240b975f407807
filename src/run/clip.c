#include "run/clip.h"

#include "base/error.h"
#include "base/log.h"
#include "base/time.h"
#include "image/tiles.h"
#include "memory/ledger.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static lb_status alloc_tiles(lb_clip *clip, uint8_t **tiles, lb_error *error) {
    const size_t tile = (size_t)clip->tile_size * (size_t)clip->tile_size * 3;
    clip->tiles_bytes = tile * (size_t)clip->n_tiles;
    clip->tiles_fd = memfd_create("lowbeam-tiles", MFD_CLOEXEC);
    void *map = MAP_FAILED;
    if (clip->tiles_fd >= 0 && ftruncate(clip->tiles_fd, (off_t)clip->tiles_bytes) == 0)
        map = mmap(NULL, clip->tiles_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, clip->tiles_fd, 0);
    if (map == MAP_FAILED)
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory for %d tiles (%zu MiB): %s", clip->n_tiles,
                            clip->tiles_bytes >> 20, strerror(errno));
    *tiles = map;
    clip->tiles = map;
    lb_ledger_add(LB_COMPONENT_FRAMES, clip->tiles_bytes);
    return LB_STATUS_OK;
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
        if (i > 0 && frames->index[i] == frames->index[i - 1])
            memcpy(to, to - bytes, bytes);
        else
            status = lb_tiles_cut(lb_frames_view(frames, i), grid, clip->tile_size, to, error);
        clip->tiles_per_frame[i] = grid.n_tiles;
    }
    return status;
}

lb_status lb_clip_prepare(const char *path, const lb_clip_params *params, lb_clip **out, lb_error *error) {
    *out = NULL;
    lb_clip *clip = calloc(1, sizeof *clip);
    if (!clip)
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "%s: no memory", path);
    clip->tiles_fd = -1;
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

void lb_clip_free(lb_clip *clip) {
    if (!clip)
        return;
    if (clip->tiles) {
        munmap((void *)clip->tiles, clip->tiles_bytes);
        lb_ledger_sub(LB_COMPONENT_FRAMES, clip->tiles_bytes);
    }
    if (clip->tiles_fd >= 0)
        close(clip->tiles_fd);
    if (clip->frames)
        lb_ledger_sub(LB_COMPONENT_FRAMES, clip->frames->data_bytes);
    lb_frames_free(clip->frames);
    free(clip->tiles_per_frame);
    free(clip);
}
