#include "detector/preprocess.h"

#include "base/error.h"
#include "image/tiles.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

lb_preprocess_params lb_preprocess_default_params(void) {
    return (lb_preprocess_params){
        .shortest_edge = 800,
        .longest_edge = 1333,
        .mean = {0.485f, 0.456f, 0.406f},
        .std = {0.229f, 0.224f, 0.225f},
    };
}

lb_status lb_preprocess_read(const lb_gguf *file, lb_preprocess_params *params, lb_error *error) {
    *params = lb_preprocess_default_params();
    const struct {
        const char *key;
        int *value;
    } edges[] = {{"gdino.preprocess.shortest_edge", &params->shortest_edge},
                 {"gdino.preprocess.longest_edge", &params->longest_edge}};
    lb_status status;
    for (int i = 0; i < 2; i++) {
        int64_t value;
        if ((status = lb_gguf_int(file, edges[i].key, &value, error)) != LB_STATUS_OK)
            return status;
        if (value < 1 || value > 16384)
            return lb_error_set(error, LB_STATUS_FORMAT, "%s: '%s' is %lld, not from 1 to 16384", lb_gguf_path(file),
                                edges[i].key, (long long)value);
        *edges[i].value = (int)value;
    }
    if ((status = lb_gguf_floats(file, "gdino.preprocess.mean", 3, params->mean, error)) != LB_STATUS_OK ||
        (status = lb_gguf_floats(file, "gdino.preprocess.std", 3, params->std, error)) != LB_STATUS_OK)
        return status;
    for (int c = 0; c < 3; c++)
        if (!isfinite(params->mean[c]) || !isfinite(params->std[c]) || params->std[c] <= 0)
            return lb_error_set(error, LB_STATUS_FORMAT,
                                "%s: 'gdino.preprocess.mean' and 'std' are no numbers to "
                                "normalise with",
                                lb_gguf_path(file));
    return LB_STATUS_OK;
}

lb_status lb_preprocess_size(const lb_preprocess_params *params, int width, int height, int *out_width, int *out_height,
                             lb_error *error) {
    *out_width = *out_height = 0;
    if (width < 1 || height < 1 || params->shortest_edge < 1 || params->longest_edge < 1)
        return lb_error_set(error, LB_STATUS_INVALID_ARGUMENT, "a picture of %dx%d, edges of %d and %d", width, height,
                            params->shortest_edge, params->longest_edge);
    const double least = width < height ? width : height, most = width < height ? height : width;
    double size = params->shortest_edge, raw = size;
    if (most / least * size > params->longest_edge) {
        raw = params->longest_edge * least / most;
        size = nearbyint(raw); /* half to even, as Python's round */
    }
    double w, h;
    if ((height <= width && height == size) || (width <= height && width == size)) {
        w = width;
        h = height;
    } else if (width < height) {
        w = size;
        h = trunc(raw * height / width);
    } else {
        h = size;
        w = trunc(raw * width / height);
    }
    if (w < 1 || h < 1)
        return lb_error_set(error, LB_STATUS_REFUSED,
                            "a picture of %dx%d is too thin: at %d pixels of length its other side has none", width,
                            height, params->longest_edge);
    *out_width = (int)w;
    *out_height = (int)h;
    return LB_STATUS_OK;
}

lb_status lb_preprocess_resize(lb_image_view source, int width, int height, uint8_t *out, lb_error *error) {
    return lb_image_resize(source, width, height, LB_RESIZE_FILTER_BILINEAR, out, error);
}

void lb_preprocess_table(const lb_preprocess_params *params, float table[3][256]) {
    for (int c = 0; c < 3; c++) {
        for (int v = 0; v < 256; v++) {
            const float scaled = (float)(v * (1.0 / 255));
            table[c][v] = (scaled - params->mean[c]) / params->std[c];
        }
    }
}

static void fill(const float table[3][256], const uint8_t *rgb, int width, int height, int padded_width,
                 int padded_height, float *out) {
    for (int c = 0; c < 3; c++)
        for (int y = 0; y < height; y++) {
            float *row = out + ((size_t)c * (size_t)padded_height + (size_t)y) * (size_t)padded_width;
            const uint8_t *in = rgb + (size_t)y * (size_t)width * 3 + c;
            for (int x = 0; x < width; x++)
                row[x] = table[c][in[3 * (size_t)x]];
        }
}

lb_status lb_preprocess_make(const lb_preprocess_params *params, const lb_image_view *views, int n,
                             lb_preprocess_batch *batch, lb_error *error) {
    *batch = (lb_preprocess_batch){0};
    if (n < 1)
        return lb_error_set(error, LB_STATUS_INVALID_ARGUMENT, "a batch of %d pictures", n);
    lb_status status = LB_STATUS_OK;
    uint8_t *rgb = NULL;
    size_t most = 0;
    float table[3][256];
    lb_preprocess_table(params, table);
    batch->n = n;
    batch->widths = calloc((size_t)n, sizeof *batch->widths);
    batch->heights = calloc((size_t)n, sizeof *batch->heights);
    if (!batch->widths || !batch->heights)
        goto no_memory;
    for (int i = 0; i < n; i++) {
        int *w = &batch->widths[i], *h = &batch->heights[i];
        status = lb_preprocess_size(params, views[i].width, views[i].height, w, h, error);
        if (status != LB_STATUS_OK)
            goto cleanup;
        batch->width = *w > batch->width ? *w : batch->width;
        batch->height = *h > batch->height ? *h : batch->height;
        most = (size_t)*w * (size_t)*h > most ? (size_t)*w * (size_t)*h : most;
    }
    size_t plane = (size_t)batch->width * (size_t)batch->height;
    if (plane > SIZE_MAX / 16 / (size_t)n)
        goto no_memory;
    batch->pixels = calloc(plane * 3 * (size_t)n, sizeof *batch->pixels);
    rgb = malloc(most * 3);
    if (!batch->pixels || !rgb)
        goto no_memory;
    for (int i = 0; i < n; i++) {
        status = lb_preprocess_resize(views[i], batch->widths[i], batch->heights[i], rgb, error);
        if (status != LB_STATUS_OK)
            goto cleanup;
        fill((const float(*)[256])table, rgb, batch->widths[i], batch->heights[i], batch->width, batch->height,
             batch->pixels + (size_t)i * plane * 3);
    }
    goto cleanup;
no_memory:
    status = lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory for %d pictures of %dx%d", n, batch->width,
                          batch->height);
cleanup:
    free(rgb);
    if (status != LB_STATUS_OK)
        lb_preprocess_batch_free(batch);
    return status;
}

void lb_preprocess_batch_free(lb_preprocess_batch *batch) {
    free(batch->pixels);
    free(batch->widths);
    free(batch->heights);
    *batch = (lb_preprocess_batch){0};
}
