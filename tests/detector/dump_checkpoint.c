/* A random Grounding DINO checkpoint of the size that a config asks for, for tests that have no torch.
 *
 *     dump_checkpoint FOLDER      config.json and preprocessor_config.json are there; writes model.safetensors
 *
 * The weights are those of tools/make_detector_models.py in kind, not in value: each layer keeps its input's size,
 * biases and norms are random too. What it finds means nothing; with --box-threshold 0 every query is a box.
 */
#include "detector/tensors.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t state = 7;

/* From -1 to 1, evenly: a linear congruential generator's upper bits. */
static double draw(void) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (double)(state >> 11) / (double)(1ull << 52) - 1;
}

static size_t count(const lb_gdino_tensor *t) {
    size_t n = 1;
    for (int d = 0; d < t->n_dims; d++)
        n *= (size_t)t->shape[d];
    return n;
}

static bool ends_with(const char *name, const char *end) {
    const size_t n = strlen(name), m = strlen(end);
    return n >= m && strcmp(name + n - m, end) == 0;
}

static void write_tensor(const lb_gdino_tensor *t, FILE *file) {
    const size_t n = count(t);
    const bool is_norm = strstr(t->name, "norm") || strstr(t->name, "Norm");
    /* the variance of an even draw is a third of its range's square */
    double middle = 0, range = 0.3;
    if (t->n_dims > 1)
        range = sqrt(3.0 * (double)t->shape[0] / (double)n);
    if (strstr(t->name, "embeddings.weight") || strstr(t->name, "bias_table"))
        range = 0.9;
    if ((is_norm && ends_with(t->name, "weight")) || ends_with(t->name, "_param"))
        middle = ends_with(t->name, "_param") ? 0.5 : 1;
    for (size_t i = 0; i < n; i++) {
        const float v = (float)(middle + range * draw());
        fwrite(&v, sizeof v, 1, file);
    }
}

int main(int argc, char **argv) {
    lb_gdino_config config;
    lb_gdino_tensors *list = NULL;
    lb_error error = {0};
    if (argc != 2 || lb_gdino_config_read(argv[1], &config, &error) != LB_STATUS_OK ||
        lb_gdino_tensors_list(&config, &list, &error) != LB_STATUS_OK) {
        fprintf(stderr, "dump_checkpoint: %s\n", argc == 2 ? error.message : "dump_checkpoint FOLDER");
        return 1;
    }
    char path[4096], *json = NULL;
    size_t n_json = 0, offset = 0;
    snprintf(path, sizeof path, "%s/model.safetensors", argv[1]);
    FILE *head = open_memstream(&json, &n_json), *file = fopen(path, "wb");
    if (!head || !file) {
        perror(path);
        return 1;
    }
    for (size_t i = 0; i < list->n; i++) {
        const lb_gdino_tensor *t = &list->tensor[i];
        fprintf(head, "%s\"%s\":{\"dtype\":\"F32\",\"shape\":[", i ? "," : "{", t->name);
        for (int d = 0; d < t->n_dims; d++)
            fprintf(head, "%s%lld", d ? "," : "", (long long)t->shape[d]);
        fprintf(head, "],\"data_offsets\":[%zu,%zu]}", offset, offset + 4 * count(t));
        offset += 4 * count(t);
    }
    fprintf(head, "}");
    fclose(head);
    const uint64_t length = n_json;
    fwrite(&length, sizeof length, 1, file);
    fwrite(json, n_json, 1, file);
    for (size_t i = 0; i < list->n; i++)
        write_tensor(&list->tensor[i], file);
    free(json);
    lb_gdino_tensors_free(list);
    return fclose(file) != 0;
}
