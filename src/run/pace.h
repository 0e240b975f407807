/* How fast the models have been so far, and what of a video there is time for.
 *
 *     lb_pace pace = {0};
 *     lb_pace_note(&pace.encode_s, seconds / n_tiles);                 // after each video
 *     lb_pace_share share = lb_pace_choose(&pace, &load, left_s);      // before one
 */
#ifndef LB_RUN_PACE_H
#define LB_RUN_PACE_H

/* Seconds for one of each; 0: not known yet. */
typedef struct lb_pace {
    double detect_s;   /* a frame's picture */
    double encode_s;   /* a tile */
    double prompt_s;   /* a token that is read */
    double generate_s; /* a token that is written, for a whole batch of questions */
    double crops;      /* a frame's, where all that the detector finds are let in; 0: as many as may be */
    int new_tokens;    /* written by the longest answer so far */
} lb_pace;

/* Keeps the slower of what was known and what was measured; a faster one is believed step by step. */
void lb_pace_note(double *known_s, double measured_s);

/* A video with its questions. Counts are those of the whole: no frame and no crop left out. */
typedef struct lb_pace_load {
    int n_frames, tiles_per_frame; /* tiles: of the frames alone */
    int crops_per_frame;           /* at most; 0: no detector */
    int detector_frames;           /* that are still to be looked at by the detector: n_frames, or 0 */
    int tokens_per_tile;
    int text_tokens;    /* of a batch of its questions, without pictures and detections */
    int max_new_tokens; /* 0: none is written */
} lb_pace_load;

typedef struct lb_pace_share {
    int n_frames, crops_per_frame; /* at least 1; from 0 to the load's */
} lb_pace_share;

double lb_pace_seconds(const lb_pace *pace, const lb_pace_load *load, lb_pace_share share);

/* The most there is time for in left_s, if no more crops come than did so far. Frames and crops are given up in turn:
 * all crops of a frame count as much as two such frames without. Never less than one frame without crops, whatever the
 * time. Where no crop is left, the detector is not asked either. */
lb_pace_share lb_pace_choose(const lb_pace *pace, const lb_pace_load *load, double left_s);

#endif
