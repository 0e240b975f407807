/* dump_frames VIDEO N OUT.raw [FROM TO]: reads N frames as lowbeam does and writes them as [n][h][w][3] bytes; prints
 * one line of JSON about them. For tests/checks/check_frames.py. */
#include "video/video.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
    if (argc != 4 && argc != 6) {
        fprintf(stderr, "usage: %s VIDEO N OUT.raw [FROM TO]\n", argv[0]);
        return 2;
    }
    lb_frames_params params = lb_frames_default_params();
    params.n_frames = atoi(argv[2]);
    if (argc == 6) {
        params.bounded = true;
        params.from_s = strtod(argv[4], NULL);
        params.to_s = strtod(argv[5], NULL);
    }
    lb_frames *frames;
    lb_error error = {0};
    if (lb_frames_read(argv[1], &params, &frames, &error) != LB_STATUS_OK) {
        fprintf(stderr, "%s: %s\n", lb_status_name(error.status), error.message);
        return 1;
    }
    FILE *file = fopen(argv[3], "wb");
    const int is_written = file && fwrite(frames->data, 1, frames->data_bytes, file) == frames->data_bytes;
    if (!file || fclose(file) || !is_written) {
        fprintf(stderr, "%s cannot be written\n", argv[3]);
        return 1;
    }
    printf("{\"width\":%d,\"height\":%d,\"n_total\":%lld,\"fps\":%.17g,\"decode_time_s\":%.6f,\"index\":[",
           frames->width, frames->height, (long long)frames->n_total, frames->fps, frames->decode_time_s);
    for (int i = 0; i < frames->n_frames; i++)
        printf("%s%lld", i ? "," : "", (long long)frames->index[i]);
    printf("],\"time_s\":[");
    for (int i = 0; i < frames->n_frames; i++)
        printf("%s%.9f", i ? "," : "", frames->time_s[i]);
    printf("]}\n");
    lb_frames_free(frames);
    return 0;
}
