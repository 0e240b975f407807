/* Times the detector's network on pictures of noise, for bench/bench_detector.py and bench/gpu_detector.sh.
 *
 *     bench_detector MODEL.gguf [--device NAME] [--size WxH] [--batch N] [--rounds N] [--threads N] [--gathers] [--exact]
 *                    [--profile]
 *
 * Prints key=value lines; with --profile what the nodes of one run cost, each run alone, by operation and shape. */
#include "base/error.h"
#include "base/time.h"
#include "detector/detector.h"

#include <ggml.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N_TOKENS = 47, N_ROWS = 1 << 12, N_SHOWN = 25 };

typedef struct row {
    char what[160];
    double seconds;
    int n;
} row;

static row rows[N_ROWS];
static int n_rows;

static void count(void *user, const char *what, const struct ggml_tensor *node, double seconds) {
    (void)user;
    char line[160];
    const struct ggml_tensor *a = node->src[0], *b = node->src[1];
    int n = snprintf(line, sizeof line, "%-10s %s [%lld %lld %lld %lld]", what, ggml_type_name(node->type),
                     (long long)node->ne[0], (long long)node->ne[1], (long long)node->ne[2], (long long)node->ne[3]);
    if (a && n < 120)
        n += snprintf(line + n, sizeof line - (size_t)n, " of %s [%lld %lld %lld %lld]", ggml_type_name(a->type),
                      (long long)a->ne[0], (long long)a->ne[1], (long long)a->ne[2], (long long)a->ne[3]);
    if (b && n < 140)
        snprintf(line + n, sizeof line - (size_t)n, " %s", ggml_type_name(b->type));
    int i = 0;
    while (i < n_rows && strcmp(rows[i].what, line) != 0)
        i++;
    if (i == n_rows && n_rows == N_ROWS)
        return;
    if (i == n_rows)
        memcpy(rows[n_rows++].what, line, sizeof line);
    rows[i].seconds += seconds;
    rows[i].n++;
}

static int by_time(const void *a, const void *b) {
    const row *x = a, *y = b;
    return (x->seconds < y->seconds) - (x->seconds > y->seconds);
}

static void show_profile(void) {
    row all[64] = {0};
    int n_all = 0;
    double total = 0.0;
    for (int i = 0; i < n_rows; i++) {
        char name[16] = {0};
        int k = 0;
        sscanf(rows[i].what, "%15s", name);
        while (k < n_all && strcmp(all[k].what, name) != 0)
            k++;
        if (k == 64)
            continue;
        n_all += k == n_all;
        snprintf(all[k].what, sizeof all[k].what, "%s", name);
        all[k].seconds += rows[i].seconds, all[k].n += rows[i].n, total += rows[i].seconds;
    }
    qsort(all, (size_t)n_all, sizeof *all, by_time);
    qsort(rows, (size_t)n_rows, sizeof *rows, by_time);
    printf("profile_ms=%.3f\n", 1e3 * total);
    for (int i = 0; i < n_all; i++)
        printf("  %8.3f ms %5d  %s\n", 1e3 * all[i].seconds, all[i].n, all[i].what);
    for (int i = 0; i < n_rows && i < N_SHOWN; i++)
        printf("  %8.3f ms %5d  %s\n", 1e3 * rows[i].seconds, rows[i].n, rows[i].what);
}

static int ascending(const void *a, const void *b) {
    const double *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static int fail(const lb_error *error) {
    fprintf(stderr, "bench_detector: %s\n", error->message);
    return 1;
}

int main(int argc, char **argv) {
    const char *device = "cpu";
    int width = 1333, height = 750, batch = 1, n_rounds = 10;
    bool profile = false;
    lb_detector_params params = {0};
    for (int i = 2; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (strcmp(argv[i], "--gathers") == 0)
            params.gathers = true;
        else if (strcmp(argv[i], "--exact") == 0)
            params.exact = true;
        else if (strcmp(argv[i], "--profile") == 0)
            profile = true;
        else if (strcmp(argv[i], "--device") == 0 && ++i)
            device = value;
        else if (strcmp(argv[i], "--size") == 0 && ++i)
            sscanf(value, "%dx%d", &width, &height);
        else if (strcmp(argv[i], "--batch") == 0 && ++i)
            batch = atoi(value);
        else if (strcmp(argv[i], "--rounds") == 0 && ++i)
            n_rounds = atoi(value);
        else if (strcmp(argv[i], "--threads") == 0 && ++i)
            params.n_threads = atoi(value);
    }
    if (argc < 2 || batch < 1 || n_rounds < 1 || n_rounds > 1000) {
        fprintf(stderr, "usage: bench_detector MODEL.gguf [options]\n");
        return 2;
    }
    lb_error error = {0};
    lb_detector *detector = NULL;
    params.frame_batch = batch;
    if (lb_device_find(device, &params.device, &error) != LB_STATUS_OK ||
        lb_detector_open(argv[1], &params, &detector, &error) != LB_STATUS_OK)
        return fail(&error);
    int32_t tokens[N_TOKENS] = {[0] = 101, [N_TOKENS - 1] = 102}; /* phrases of two words */
    for (int i = 1; i < N_TOKENS - 1; i++)
        tokens[i] = i % 3 ? 1000 + i : 1012;
    if (lb_detector_set_labels(detector, tokens, N_TOKENS, &error) != LB_STATUS_OK)
        return fail(&error);
    const size_t n_bytes = (size_t)width * (size_t)height * 3;
    const size_t n_queries = (size_t)batch * (size_t)lb_detector_n_queries(detector);
    uint8_t *rgb = malloc(n_bytes);
    lb_detector_picture *pictures = calloc((size_t)batch, sizeof *pictures);
    float *logits = malloc(n_queries * N_TOKENS * sizeof *logits), *boxes = malloc(n_queries * 4 * sizeof *boxes);
    double *seconds = calloc((size_t)n_rounds, sizeof *seconds);
    if (!rgb || !pictures || !logits || !boxes || !seconds)
        return 1;
    uint32_t state = 1;
    for (size_t i = 0; i < n_bytes; i++) {
        state = state * 1664525u + 1013904223u;
        rgb[i] = (uint8_t)(state >> 24);
    }
    for (int i = 0; i < batch; i++)
        pictures[i] = (lb_detector_picture){rgb, width, height};
    double first = lb_now_s();
    for (int i = 0; i < 2; i++) { /* the first plans and prepares, the second lets ggml record its launches */
        if (lb_detector_run(detector, pictures, batch, logits, boxes, &error) != LB_STATUS_OK)
            return fail(&error);
        if (i == 0)
            first = lb_now_s() - first;
        if (params.device.is_cpu)
            break;
    }
    for (int i = 0; i < n_rounds; i++) {
        double start = lb_now_s();
        if (lb_detector_run(detector, pictures, batch, logits, boxes, &error) != LB_STATUS_OK)
            return fail(&error);
        seconds[i] = lb_now_s() - start;
    }
    qsort(seconds, (size_t)n_rounds, sizeof *seconds, ascending);
    printf("device=%s size=%dx%d batch=%d first_ms=%.1f\n", params.device.description, width, height, batch, 1e3 * first);
    printf("median_ms=%.3f fastest_ms=%.3f ms_a_frame=%.3f\n", 1e3 * seconds[n_rounds / 2], 1e3 * seconds[0],
           1e3 * seconds[n_rounds / 2] / batch);
    printf("activation_mib=%.1f\n", (double)lb_detector_activation_bytes(detector) / (1 << 20));
    if (profile) {
        lb_detector_set_probe(detector, &(lb_detector_probe){.timed = count});
        for (int i = 0; i < 2; i++) { /* what a first run prepares is not counted */
            n_rows = 0;
            memset(rows, 0, sizeof rows);
            if (lb_detector_run(detector, pictures, batch, logits, boxes, &error) != LB_STATUS_OK)
                return fail(&error);
        }
        show_profile();
    }
    free(seconds);
    free(boxes);
    free(logits);
    free(pictures);
    free(rgb);
    lb_detector_free(detector);
    return 0;
}
