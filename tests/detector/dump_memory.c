/* What the detector is measured to take, and what it took, for tests/run/test_detector_memory.py.
 *
 *     dump_memory MODEL.gguf WIDTH HEIGHT N [--rest] [--gathers] [--device NAME]
 *
 * One JSON line: "measured" is lb_find_measure's; "open" and "run" are the ledger's bytes then, "peak" its peaks while
 * labels were set and while N grey frames of WIDTH x HEIGHT ran; "rested" after lb_find_rest, "again" after a second
 * run.
 * --rest: weights and activations rest. Two runs must give the same boxes: "same". */
#include "detector/find.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N_MAX = 16 };

static void print_sizes(const char *name) {
    printf("\"%s\": {\"weights\": %zu, \"compute\": %zu, \"host\": %zu, \"staging\": %zu}, ", name,
           lb_ledger_get(LB_COMPONENT_DETECTOR_WEIGHTS), lb_ledger_get(LB_COMPONENT_DETECTOR_COMPUTE),
           lb_ledger_get(LB_COMPONENT_HOST_WEIGHTS), lb_ledger_get(LB_COMPONENT_FRAMES));
}

static void print_peaks(const char *name, lb_phase phase, int place) {
    printf("\"%s\": {\"weights\": %zu, \"compute\": %zu}, ", name,
           lb_ledger_peak_on(place, phase, LB_COMPONENT_DETECTOR_WEIGHTS),
           lb_ledger_peak_on(place, phase, LB_COMPONENT_DETECTOR_COMPUTE));
}

static bool same(const lb_detections *a, const lb_detections *b, int n) {
    for (int i = 0; i < n; i++) {
        if (a[i].n != b[i].n)
            return false;
        for (int k = 0; k < a[i].n; k++)
            if (memcmp(a[i].item[k].box, b[i].item[k].box, sizeof a[i].item[k].box) != 0 ||
                memcmp(&a[i].item[k].score, &b[i].item[k].score, sizeof a[i].item[k].score) != 0)
                return false;
    }
    return true;
}

int main(int argc, char **argv) {
    if (argc < 5) {
        fprintf(stderr, "usage: dump_memory MODEL WIDTH HEIGHT N [--rest] [--gathers] [--device NAME]\n");
        return 2;
    }
    const int width = atoi(argv[2]), height = atoi(argv[3]), n = atoi(argv[4]);
    const char *device = "cpu";
    lb_find_params params = lb_find_default_params();
    params.box_threshold = 0;
    params.detector.frame_batch = n;
    for (int i = 5; i < argc; i++) {
        if (strcmp(argv[i], "--rest") == 0)
            params.detector.rest_compute = params.detector.rest_weights = true;
        else if (strcmp(argv[i], "--gathers") == 0)
            params.detector.gathers = true;
        else if (strcmp(argv[i], "--device") == 0 && i + 1 < argc)
            device = argv[++i];
    }
    lb_error error = {0};
    lb_find_sizes measured, largest;
    lb_find *find = NULL;
    lb_image_view views[N_MAX];
    lb_detections first[N_MAX] = {0}, second[N_MAX] = {0};
    uint8_t *grey = malloc((size_t)width * (size_t)height * 3);
    if (!grey || n < 1 || n > N_MAX)
        return 2;
    for (size_t i = 0; i < (size_t)width * (size_t)height * 3; i++)
        grey[i] = (uint8_t)(i * 7 % 251);
    for (int i = 0; i < n; i++)
        views[i] = (lb_image_view){grey, width, height, (size_t)width * 3};
    lb_status status = lb_device_find(device, &params.detector.device, &error);
    const int place = params.detector.device.place;
    if (status == LB_STATUS_OK)
        status = lb_find_measure(argv[1], &params, width, height, n, &measured, &error);
    if (status == LB_STATUS_OK)
        status = lb_find_measure(argv[1], &params, 0, 0, n, &largest, &error);
    if (status == LB_STATUS_OK) {
        printf("{\"measured\": {\"weights\": %zu, \"text\": %zu, \"text_encoder\": %zu, \"text_encoder_compute\": %zu, "
               "\"compute\": %zu, \"staging\": %zu, \"largest\": %zu}, ",
               measured.weight_bytes, measured.text_bytes, measured.text_encoder_bytes,
               measured.text_encoder_compute_bytes, measured.compute_bytes, measured.staging_bytes,
               largest.compute_bytes);
        print_sizes("before");
        lb_ledger_phase(LB_PHASE_LOAD);
        status = lb_find_open(argv[1], &params, &find, &error);
    }
    if (status == LB_STATUS_OK) {
        print_sizes("open");
        lb_ledger_phase(LB_PHASE_DETECT);
        status = lb_find_run(find, views, n, first, &error);
        print_sizes("run");
    }
    if (status == LB_STATUS_OK) {
        print_peaks("peak_load", LB_PHASE_LOAD, place);
        print_peaks("peak_run", LB_PHASE_DETECT, place);
        lb_find_rest(find);
        print_sizes("rested");
        status = lb_find_run(find, views, n, second, &error);
    }
    if (status == LB_STATUS_OK) {
        print_sizes("again");
        printf("\"boxes\": %d, \"same\": %s, ", first[0].n, same(first, second, n) ? "true" : "false");
    } else {
        fprintf(stderr, "dump_memory: %s\n", error.message);
    }
    lb_find_free(find);
    print_sizes("freed");
    printf("\"status\": %d}\n", (int)status);
    for (int i = 0; i < n; i++) {
        lb_detections_free(&first[i]);
        lb_detections_free(&second[i]);
    }
    free(grey);
    return status == LB_STATUS_OK ? 0 : 1;
}
