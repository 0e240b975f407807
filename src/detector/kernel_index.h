/* Index arithmetic of the detector's own operations: the same lines serve the CPU's functions (ops_cpu.c) and the CUDA
 * kernels (cuda_kernels.cuh), so that what is compared with the reference on a CPU holds on a GPU. */
#ifndef LB_DETECTOR_KERNEL_INDEX_H
#define LB_DETECTOR_KERNEL_INDEX_H

#include <math.h>

#ifdef __CUDACC__
#define LB_BOTH __host__ __device__ static inline
#else
#define LB_BOTH static inline
#endif

/* A map of tokens under windows; padding completes the windows to the right and at the bottom, and a shift moves all of
 * them to the right and down, what leaves the padded map coming back at its other side (torch.roll by -shift). */
typedef struct lb_windows {
    int width, height; /* tokens of the map, row by row */
    int window;        /* tokens a side */
    int shift;
} lb_windows;

LB_BOTH int lb_windows_across(lb_windows w) {
    return (w.width + w.window - 1) / w.window;
}

LB_BOTH int lb_windows_down(lb_windows w) {
    return (w.height + w.window - 1) / w.window;
}

/* The map's token at a place (row by row) of window i (likewise), -1 where it is padding. */
LB_BOTH int lb_window_token(lb_windows w, int i, int place) {
    const int across = lb_windows_across(w), down = lb_windows_down(w);
    int x = i % across * w.window + place % w.window + w.shift;
    int y = i / across * w.window + place / w.window + w.shift;
    x -= x >= across * w.window ? across * w.window : 0;
    y -= y >= down * w.window ? down * w.window : 0;
    return x < w.width && y < w.height ? y * w.width + x : -1;
}

/* Places of a window that differ in this are no neighbours in the picture: the shift has joined them. */
LB_BOTH int lb_window_region(lb_windows w, int i, int place) {
    const int across = lb_windows_across(w), down = lb_windows_down(w);
    const int x = i % across == across - 1 && place % w.window >= w.window - w.shift;
    const int y = i / across == down - 1 && place / w.window >= w.window - w.shift;
    return x + 2 * y;
}

/* Where a query's and a key's place of a window meet in the table of relative positions, (2 window - 1)^2: the
 * difference of these two. */
LB_BOTH int lb_window_query_offset(int window, int place) {
    return (place / window + window - 1) * (2 * window - 1) + place % window + window - 1;
}

LB_BOTH int lb_window_key_offset(int window, int place) {
    return place / window * (2 * window - 1) + place % window;
}

/* SwinPatchMerging: of the four tokens that become one, chunk 0 is the upper left, then lower left, upper right, lower
 * right. -1 beyond the map's edge. */
LB_BOTH int lb_merged_token(int width, int height, int token, int chunk) {
    const int across = (width + 1) / 2;
    const int x = token % across * 2 + chunk / 2, y = token / across * 2 + chunk % 2;
    return x < width && y < height ? y * width + x : -1;
}

/* A sample between four pixels of a level, x and y in pixels, the middle of the first being 0 (grid_sample's zeros
 * beyond the edges, align_corners false). */
typedef struct lb_corners {
    int at[4]; /* pixel of the level, row by row; 0 where the weight is */
    float weight[4];
} lb_corners;

/* share: what all weights are multiplied with. A place that is no number makes weights that are none: damaged model
 * files are seen by what comes out. */
LB_BOTH lb_corners lb_sample_corners(int width, int height, float x, float y, float share) {
    lb_corners c = {{0, 0, 0, 0}, {0.0f, 0.0f, 0.0f, 0.0f}};
    if (!(x - x == 0.0f) || !(y - y == 0.0f)) {
        c.weight[0] = (x - x) + (y - y);
        return c;
    }
    if (x <= -1.0f || x >= (float)width || y <= -1.0f || y >= (float)height)
        return c;
    const int x0 = (int)floorf(x), y0 = (int)floorf(y);
    const float fx = x - (float)x0, fy = y - (float)y0;
    for (int i = 0; i < 4; i++) {
        const int cx = x0 + i % 2, cy = y0 + i / 2;
        if (cx < 0 || cx >= width || cy < 0 || cy >= height)
            continue;
        c.at[i] = cy * width + cx;
        c.weight[i] = share * (i % 2 ? fx : 1.0f - fx) * (i / 2 ? fy : 1.0f - fy);
    }
    return c;
}

#endif
