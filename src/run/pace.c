#include "run/pace.h"

/* Of the time that is left, what is planned for: speeds vary, and a late answer is worse than one crop less. */
#define PLANNED_SHARE 0.85
enum {
    NEW_TOKENS = 8,    /* of an answer, before the first one has been seen */
    TOKENS_A_LABEL = 6 /* of a detection in the prompt */
};

void lb_pace_note(double *known_s, double measured_s) {
    if (measured_s > 0)
        *known_s = measured_s > *known_s ? measured_s : *known_s + (measured_s - *known_s) / 4;
}

double lb_pace_seconds(const lb_pace *pace, const lb_pace_load *load, lb_pace_share share) {
    const double crops = pace->crops > 0 && pace->crops < share.crops_per_frame ? pace->crops : share.crops_per_frame;
    const double tiles = share.n_frames * (load->tiles_per_frame + crops);
    int written = pace->new_tokens > 0 ? pace->new_tokens : NEW_TOKENS;
    if (written > load->max_new_tokens)
        written = load->max_new_tokens;
    const double text = load->text_tokens + TOKENS_A_LABEL * share.n_frames * crops;
    const double looked_at = share.crops_per_frame > 0 && load->detector_frames > 0 ? share.n_frames : 0;
    return looked_at * pace->detect_s + tiles * pace->encode_s +
           (tiles * load->tokens_per_tile + text) * pace->prompt_s + written * pace->generate_s;
}

/* What an answer from such a share is worth, for comparison with others of the same load alone. */
static double worth(const lb_pace_load *load, lb_pace_share s) {
    return load->crops_per_frame > 0 ? (double)s.n_frames * (1 + 2.0 * s.crops_per_frame / load->crops_per_frame)
                                     : s.n_frames;
}

lb_pace_share lb_pace_choose(const lb_pace *pace, const lb_pace_load *load, double left_s) {
    const double planned_s = left_s * PLANNED_SHARE;
    lb_pace_share best = {1, 0};
    double best_worth = 0;
    for (int n = load->n_frames; n >= 1; n--) {
        for (int c = load->crops_per_frame; c >= 0; c--) {
            const lb_pace_share share = {n, c};
            if (lb_pace_seconds(pace, load, share) > planned_s)
                continue;
            const double w = worth(load, share);
            if (w > best_worth) {
                best = share;
                best_worth = w;
            }
            break; /* fewer crops of as many frames are worth less */
        }
    }
    return best;
}
