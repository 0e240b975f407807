/* One video made ready for the engine: frames read, tiles cut, the detector's pictures resized, all in shared memory.
 *
 *     lb_clip *clip;
 *     lb_clip_prepare("videos/a.mp4", &params, &clip, &error);       // any thread
 *     send(clip->tiles_fd, clip->tiles_per_frame);
 *     lb_clip_free(clip);
 */
#ifndef LB_RUN_CLIP_H
#define LB_RUN_CLIP_H

#include "journal/fingerprint.h"
#include "lowbeam/status.h"
#include "run/findings.h"
#include "video/video.h"

typedef struct lb_clip_params {
    lb_frames_params frames;
    int max_tiles;                   /* of one frame, without the thumbnail; default 1 */
    int tile_size;                   /* pixels a side, from the mmproj file */
    int shortest_edge, longest_edge; /* of the detector's pictures, from its file; 0: no detector */
} lb_clip_params;

typedef struct lb_clip {
    lb_frames *frames;
    int n_tiles, tile_size;
    int *tiles_per_frame; /* [frames->n_frames] */
    const uint8_t *tiles; /* [n_tiles][tile_size][tile_size][3], mapped from tiles_fd, which another process can map */
    size_t tiles_bytes;
    int tiles_fd;
    lb_resized resized; /* for the detector, mapped from resized_fd; data NULL: none */
    size_t resized_bytes;
    int resized_fd;
    char *path;         /* as lb_clip_prepare was given it; NULL: made otherwise */
    double tile_time_s; /* cutting and resizing; frames->decode_time_s: reading */
    int seen_fd;        /* not -1: what a former run's models saw of it (run/sights.h); nothing else is there then */
    int n_seen_frames;
    lb_fingerprint content; /* of the video; lb_prefetch fills it in */
    size_t held_bytes;      /* of lb_prefetch's limit */
    struct lb_clip *next;   /* for whoever keeps clips in a list */
} lb_clip;

/* Errors: those of lb_frames_read, lb_tiles_cut and lb_preprocess_size, with the path in front. */
lb_status lb_clip_prepare(const char *path, const lb_clip_params *params, lb_clip **clip, lb_error *error);
void lb_clip_free(lb_clip *clip);

/* A clip that is only what a former run saw; fd: taken over. NULL: no memory (fd is closed). */
lb_clip *lb_clip_seen(int fd, int n_frames);

/* What a clip of such frames takes at most: frames, tiles and the detector's pictures. Errors: lb_tile_grid_choose's,
 * lb_preprocess_size's. */
lb_status lb_clip_bytes(int width, int height, const lb_clip_params *params, size_t *bytes, lb_error *error);

#endif
