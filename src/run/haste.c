#include "run/haste.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Appends one of the things that were done. */
static void add(char *text, size_t n, int *n_things, const char *format, ...) __attribute__((format(printf, 4, 5)));
static void add(char *text, size_t n, int *n_things, const char *format, ...) {
    size_t used = strlen(text);
    if ((*n_things)++ > 0)
        used += (size_t)snprintf(text + used, n - used, ", ");
    va_list args;
    va_start(args, format);
    vsnprintf(text + used, n - used, format, args);
    va_end(args);
}

void lb_haste_note(const lb_run_params *params, const lb_engine_reply *reply, double elapsed_s, lb_run_result *result,
                   char *text, size_t n) {
    text[0] = 0;
    if (elapsed_s > result->slowest_s)
        result->slowest_s = elapsed_s;
    if (params->deadline_s == 0 || reply->status != LB_STATUS_OK)
        return;
    int n_things = 0;
    snprintf(text, n, "--deadline %gs: ", params->deadline_s);
    if (reply->n_frames < params->clip.frames.n_frames)
        add(text, n, &n_things, "%d of %d frames", reply->n_frames, params->clip.frames.n_frames);
    if (reply->fewer_crops && reply->max_crops == 0)
        add(text, n, &n_things, "without the detector");
    else if (reply->fewer_crops)
        add(text, n, &n_things, "%d crops a frame", reply->max_crops);
    if (reply->cut)
        add(text, n, &n_things, "text ended after %d tokens", reply->n_new_tokens);
    result->n_hurried += n_things > 0;
    if (elapsed_s > params->deadline_s)
        add(text, n, &n_things, "it took %.1f s", elapsed_s);
    else
        result->n_in_time++;
    if (n_things == 0)
        text[0] = 0;
}
