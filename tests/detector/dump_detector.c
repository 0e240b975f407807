/* Runs the detector on one batch and writes every named intermediate, for tests/checks/check_detector.py.
 *
 *     dump_detector MODEL.gguf CASE_DIR OUT_DIR [--device NAME] [--gathers] [--kernels] [--exact] [--choice FILE] [--batch N]
 *
 * CASE_DIR: tokens.i32, sizes.i32 (width, height of each picture), image_<i>.rgb, as raw bytes of this machine's order.
 * OUT_DIR (must exist): <name>.npy for each, f32 with the fastest axis last, as NumPy reads them. choice: raw i32,
 * [n][n_queries], taken instead of the best proposals. */
#include "base/error.h"
#include "detector/detector.h"
#include "run/npy.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N_MAX = 16 };

static void *read_all(const char *folder, const char *name, size_t *n_bytes) {
    char path[4096];
    snprintf(path, sizeof path, "%s%s%s", folder, *folder ? "/" : "", name);
    FILE *file = fopen(path, "rb");
    if (!file || fseek(file, 0, SEEK_END) != 0) {
        fprintf(stderr, "dump_detector: cannot read %s\n", path);
        exit(1);
    }
    *n_bytes = (size_t)ftell(file);
    rewind(file);
    void *data = malloc(*n_bytes + 1);
    if (!data || fread(data, 1, *n_bytes, file) != *n_bytes) {
        fprintf(stderr, "dump_detector: cannot read %s\n", path);
        exit(1);
    }
    fclose(file);
    return data;
}

static void write_tensor(void *user, const char *name, const int64_t ne[4], const float *values) {
    lb_error error = {0};
    char file[128];
    const int64_t shape[4] = {ne[3], ne[2], ne[1], ne[0]};
    snprintf(file, sizeof file, "%s.npy", name);
    if (lb_npy_write(user, file, "<f4", 4, shape, values, &error) != LB_STATUS_OK) {
        fprintf(stderr, "dump_detector: %s\n", error.message);
        exit(1);
    }
}

static int fail(const lb_error *error) {
    fprintf(stderr, "dump_detector: %s\n", error->message);
    return 1;
}

int main(int argc, char **argv) {
    if (argc < 4) {
        fprintf(stderr, "usage: dump_detector MODEL CASE_DIR OUT_DIR [options]\n");
        return 2;
    }
    const char *device = "cpu", *choice = NULL;
    lb_detector_params params = {.frame_batch = N_MAX};
    for (int i = 4; i < argc; i++) {
        if (strcmp(argv[i], "--gathers") == 0)
            params.gathers = true;
        else if (strcmp(argv[i], "--kernels") == 0)
            params.kernels = true;
        else if (strcmp(argv[i], "--exact") == 0)
            params.exact = true;
        else if (strcmp(argv[i], "--device") == 0 && i + 1 < argc)
            device = argv[++i];
        else if (strcmp(argv[i], "--choice") == 0 && i + 1 < argc)
            choice = argv[++i];
        else if (strcmp(argv[i], "--batch") == 0 && i + 1 < argc)
            params.frame_batch = atoi(argv[++i]);
    }
    lb_error error = {0};
    lb_detector *detector = NULL;
    if (lb_device_find(device, &params.device, &error) != LB_STATUS_OK ||
        lb_detector_open(argv[1], &params, &detector, &error) != LB_STATUS_OK)
        return fail(&error);

    size_t token_bytes, size_bytes, bytes;
    int32_t *tokens = read_all(argv[2], "tokens.i32", &token_bytes),
            *sizes = read_all(argv[2], "sizes.i32", &size_bytes);
    const int n = (int)(size_bytes / 8);
    lb_detector_picture pictures[N_MAX] = {0};
    for (int i = 0; i < n && i < N_MAX; i++) {
        char name[32];
        snprintf(name, sizeof name, "image_%d.rgb", i);
        pictures[i] = (lb_detector_picture){read_all(argv[2], name, &bytes), sizes[2 * i], sizes[2 * i + 1]};
        if (bytes != (size_t)pictures[i].width * (size_t)pictures[i].height * 3) {
            fprintf(stderr, "dump_detector: %s is not %dx%d\n", name, pictures[i].width, pictures[i].height);
            return 1;
        }
    }
    lb_detector_probe probe = {.watch = write_tensor, .user = argv[3]};
    int32_t *choices = choice ? read_all("", choice, &bytes) : NULL;
    probe.choice = choices;
    if (params.frame_batch >= n) /* smaller batches would overwrite each other's files: only what leaves is written */
        lb_detector_set_probe(detector, &probe);
    const int n_queries = lb_detector_n_queries(detector), n_tokens = (int)(token_bytes / 4);
    float *logits = malloc((size_t)n * (size_t)n_queries * (size_t)n_tokens * sizeof *logits);
    float *boxes = malloc((size_t)n * (size_t)n_queries * 4 * sizeof *boxes);
    lb_status status = logits && boxes ? LB_STATUS_OK : lb_error_set(&error, LB_STATUS_OUT_OF_MEMORY, "no memory");
    if (status == LB_STATUS_OK)
        status = lb_detector_set_labels(detector, tokens, n_tokens, &error);
    if (status == LB_STATUS_OK)
        status = lb_detector_run(detector, pictures, n, logits, boxes, &error);
    if (status == LB_STATUS_OK) {
        write_tensor(argv[3], "logits", (int64_t[4]){n_tokens, n_queries, n, 1}, logits);
        write_tensor(argv[3], "boxes", (int64_t[4]){4, n_queries, n, 1}, boxes);
    } else {
        fprintf(stderr, "dump_detector: %s\n", error.message);
    }
    for (int i = 0; i < n; i++)
        free((void *)pictures[i].rgb);
    free(choices);
    free(logits);
    free(boxes);
    free(tokens);
    free(sizes);
    lb_detector_free(detector);
    return status == LB_STATUS_OK ? 0 : 1;
}
