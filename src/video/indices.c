#include "video/video.h"

#include "base/error.h"
#include "video/protocol.h"

#include <math.h>

lb_frames_params lb_frames_default_params(void) {
    return (lb_frames_params){
        .n_frames = 8,
        .from_s = -INFINITY,
        .to_s = INFINITY,
        .timeout_s = 20,
        /* 16 references of 8K video in 10 bits, with a decoder thread each */
        .decoder_bytes = (size_t)4 << 30,
        .max_bytes = (size_t)4 << 30,
        .image_fps = 1,
    };
}

/* InternVL's get_index (its README's load_video), in the same floating-point steps: Python's and NumPy's round take
 * halves to the even number, which is rint() in the default rounding mode; int() cuts toward zero. */
lb_status lb_frame_indices(int64_t n_total, double fps, const lb_frames_params *params, int64_t *index,
                           lb_error *error) {
    const int n = params->n_frames;
    if (n < 1 || n > LB_DECODE_FRAMES_MAX)
        return lb_error_set(error, LB_STATUS_INVALID_ARGUMENT, "%d frames asked for; 1 to %d can be", n,
                            LB_DECODE_FRAMES_MAX);
    if (n_total < 1)
        return lb_error_set(error, LB_STATUS_INVALID_ARGUMENT, "the video has no frames");
    const double last = (double)(n_total - 1);
    double start = 0, end = last;
    if (params->bounded) {
        if (!(params->from_s < params->to_s))
            return lb_error_set(error, LB_STATUS_INVALID_ARGUMENT, "the bound from %g s to %g s is empty",
                                params->from_s, params->to_s);
        if (!(fps > 0) || isinf(fps))
            return lb_error_set(error, LB_STATUS_INVALID_ARGUMENT,
                                "the video has no frame rate, so seconds mean nothing in it; leave the bound out");
        start = fmax(0, rint(params->from_s * fps));
        end = fmin(rint(params->to_s * fps), last);
        if (start > end)
            return lb_error_set(error, LB_STATUS_INVALID_ARGUMENT,
                                "the bound from %g s to %g s lies outside the video (%lld frames at %g a second: "
                                "%.2f s)",
                                params->from_s, params->to_s, (long long)n_total, fps, (double)n_total / fps);
    }
    const double segment = (end - start) / n;
    for (int i = 0; i < n; i++)
        index[i] = (int64_t)(start + segment / 2 + rint(segment * i));
    return LB_STATUS_OK;
}
