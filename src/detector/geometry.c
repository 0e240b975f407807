#include "detector/model_internal.h"

#include "base/error.h"

#include <math.h>

static int largest(const int *size, int n, int axis) {
    int most = 0;
    for (int i = 0; i < n; i++)
        most = size[2 * i + axis] > most ? size[2 * i + axis] : most;
    return most;
}

lb_status lb_gdino_geometry_make(const lb_gdino_hparams *hp, const int *size, int n, lb_gdino_geometry *geometry,
                                 lb_error *error) {
    enum { SIDE_MAX = 1 << 13 }; /* indices of samples are exact in f32 up to 2^24: tokens times heads stays below */
    const lb_swin_hparams *swin = &hp->swin;
    *geometry = (lb_gdino_geometry){.n = n, .width = largest(size, n, 0), .height = largest(size, n, 1), .size = size};
    for (int i = 0; i < n; i++) {
        if (size[2 * i] < 1 || size[2 * i + 1] < 1 || size[2 * i] > SIDE_MAX || size[2 * i + 1] > SIDE_MAX)
            return lb_error_set(error, LB_STATUS_INVALID_ARGUMENT, "picture %d is %dx%d, the detector takes 1 to %d", i,
                                size[2 * i], size[2 * i + 1], SIDE_MAX);
        geometry->padded |= size[2 * i] != geometry->width || size[2 * i + 1] != geometry->height;
    }
    int w = (geometry->width + swin->patch_size - 1) / swin->patch_size;
    int h = (geometry->height + swin->patch_size - 1) / swin->patch_size;
    for (int i = 0; i < swin->n_stages; i++, w = (w + 1) / 2, h = (h + 1) / 2)
        geometry->map_width[i] = w, geometry->map_height[i] = h;
    geometry->n_levels = hp->num_feature_levels;
    for (int i = 0; i < geometry->n_levels; i++) {
        lb_gdino_level *level = &geometry->level[i];
        if (i < swin->n_out) {
            level->width = geometry->map_width[swin->out_indices[i] - 1];
            level->height = geometry->map_height[swin->out_indices[i] - 1];
        } else { /* a convolution of 3, stride 2, padding 1, over the level before */
            level->width = (level[-1].width - 1) / 2 + 1;
            level->height = (level[-1].height - 1) / 2 + 1;
        }
        level->start = geometry->n_tokens;
        geometry->n_tokens += level->width * level->height;
    }
    if (geometry->n_tokens < hp->num_queries)
        return lb_error_set(error, LB_STATUS_INVALID_ARGUMENT,
                            "a picture of %dx%d gives %d places for %d queries; enlarge it before detection",
                            geometry->width, geometry->height, geometry->n_tokens, hp->num_queries);
    const int heads = hp->encoder_attention_heads > hp->decoder_attention_heads ? hp->encoder_attention_heads
                                                                                : hp->decoder_attention_heads;
    if ((int64_t)geometry->n_tokens * heads >= 1 << 24)
        return lb_error_set(error, LB_STATUS_INVALID_ARGUMENT, "a picture of %dx%d is too large for the detector",
                            geometry->width, geometry->height);
    return LB_STATUS_OK;
}

int lb_gdino_n_kinds(const lb_gdino_geometry *geometry) {
    return geometry->padded ? geometry->n : 1;
}

/* The mask of pixels is brought to the level's size by torch's nearest interpolation; in f32, as there. */
int lb_gdino_valid(const lb_gdino_geometry *geometry, int level, int image, int axis) {
    const int n_pixels = axis == 0 ? geometry->width : geometry->height;
    const int n = axis == 0 ? geometry->level[level].width : geometry->level[level].height;
    const float scale = (float)n_pixels / (float)n;
    int valid = 0;
    while (valid < n && (int)floorf((float)valid * scale) < geometry->size[2 * image + axis])
        valid++;
    return valid;
}
