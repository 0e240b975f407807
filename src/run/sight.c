#include "run/sight.h"

#include "base/error.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { ALIGN = 64 };
static const int TEXT_MAX = 1 << 20;

/* In front; after it the detections, then from rows_at on the embeddings. */
typedef struct head {
    int32_t n_frames, n_tiles, detector, n_embd;
    int64_t n_rows, rows_at, n_boxes, n_empty;
} head;

void lb_sight_free(lb_sight *sight) {
    lb_findings_free(&sight->findings);
    lb_embeddings_free(sight->pictures);
    free(sight->tiles_per_frame);
    *sight = (lb_sight){0};
}

static void put_text(FILE *out, const char *text) {
    const int32_t n = text ? (int32_t)strlen(text) : -1;
    fwrite(&n, sizeof n, 1, out);
    if (n > 0)
        fwrite(text, 1, (size_t)n, out);
}

/* query, box, score, label, label_score, without the padding that a struct may have */
static void put_detection(FILE *out, const lb_detection *d) {
    const int32_t numbers[2] = {d->query, d->label};
    fwrite(numbers, sizeof numbers, 1, out);
    fwrite(d->box, sizeof d->box, 1, out);
    fwrite(&d->score, sizeof d->score, 1, out);
    fwrite(&d->label_score, sizeof d->label_score, 1, out);
    put_text(out, d->raw_label);
}

static void put_findings(FILE *out, const lb_findings *findings) {
    for (int i = 0; i < findings->n_frames; i++) {
        const lb_detections *f = &findings->frame[i];
        const int32_t counts[2] = {f->n, f->n_empty};
        fwrite(counts, sizeof counts, 1, out);
        for (int k = 0; k < f->n; k++)
            put_detection(out, &f->item[k]);
        put_text(out, findings->text ? findings->text[i] : NULL);
    }
}

lb_status lb_sight_write(const lb_sight *sight, int n_frames, int n_embd, int *fd, size_t *bytes, lb_error *error) {
    const lb_findings *findings = &sight->findings;
    head h = {.n_frames = n_frames,
              .n_tiles = sight->n_tiles,
              .detector = findings->n_frames > 0,
              .n_embd = n_embd,
              .n_rows = lb_embeddings_n_rows(sight->pictures),
              .n_boxes = findings->n_boxes,
              .n_empty = findings->n_empty};
    *fd = -1;
    char *front = NULL;
    size_t n_front = 0;
    FILE *out = open_memstream(&front, &n_front);
    if (!out)
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory for what was seen");
    fwrite(&h, sizeof h, 1, out);
    for (int i = 0; i < n_frames; i++)
        fwrite(&(int32_t){sight->tiles_per_frame[i]}, sizeof(int32_t), 1, out);
    put_findings(out, findings);
    bool good = !ferror(out);
    good &= fclose(out) == 0;
    const size_t n_rows_bytes = (size_t)h.n_rows * (size_t)n_embd * sizeof(float);
    uint8_t *map = MAP_FAILED;
    h.rows_at = (int64_t)((n_front + ALIGN - 1) / ALIGN * ALIGN);
    *bytes = (size_t)h.rows_at + n_rows_bytes;
    if (good && (*fd = memfd_create("lowbeam-sight", MFD_CLOEXEC)) >= 0 && ftruncate(*fd, (off_t)*bytes) == 0)
        map = mmap(NULL, *bytes, PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0);
    if (map != MAP_FAILED) {
        memcpy(front, &h, sizeof h);
        memcpy(map, front, n_front);
        memcpy(map + h.rows_at, lb_embeddings_rows(sight->pictures), n_rows_bytes);
        munmap(map, *bytes);
    }
    free(front);
    if (map != MAP_FAILED)
        return LB_STATUS_OK;
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
    return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory for what was seen (%zu MiB): %s", *bytes >> 20,
                        strerror(errno));
}

typedef struct reader {
    const uint8_t *at, *end;
    bool bad;
} reader;

static void get(reader *r, void *to, size_t n) {
    if (r->bad || (size_t)(r->end - r->at) < n) {
        r->bad = true;
        memset(to, 0, n);
        return;
    }
    memcpy(to, r->at, n);
    r->at += n;
}

static char *get_text(reader *r) {
    int32_t n;
    get(r, &n, sizeof n);
    if (r->bad || n < 0)
        return NULL;
    if (n > TEXT_MAX || n > r->end - r->at) {
        r->bad = true;
        return NULL;
    }
    char *text = malloc((size_t)n + 1);
    if (!text) {
        r->bad = true;
        return NULL;
    }
    get(r, text, (size_t)n);
    text[n] = 0;
    return text;
}

static void get_frame(reader *r, lb_detections *frame) {
    int32_t counts[2], numbers[2];
    get(r, counts, sizeof counts);
    r->bad |= counts[0] < 0 || counts[0] > r->end - r->at; /* a detection takes more than a byte */
    if (r->bad)
        return;
    frame->item = calloc((size_t)counts[0] + 1, sizeof *frame->item);
    r->bad |= !frame->item;
    for (int k = 0; k < counts[0] && !r->bad; k++) {
        lb_detection *d = &frame->item[frame->n++];
        get(r, numbers, sizeof numbers);
        get(r, d->box, sizeof d->box);
        get(r, &d->score, sizeof d->score);
        get(r, &d->label_score, sizeof d->label_score);
        d->query = numbers[0];
        d->label = numbers[1];
        d->raw_label = get_text(r);
    }
    frame->n_empty = counts[1];
}

static void get_findings(reader *r, const head *h, lb_findings *findings) {
    findings->frame = calloc((size_t)h->n_frames, sizeof *findings->frame);
    findings->text = calloc((size_t)h->n_frames, sizeof *findings->text);
    r->bad |= !findings->frame || !findings->text;
    findings->n_frames = h->n_frames;
    findings->n_boxes = (int)h->n_boxes;
    findings->n_empty = (int)h->n_empty;
    for (int i = 0; i < h->n_frames && !r->bad; i++) {
        get_frame(r, &findings->frame[i]);
        findings->text[i] = get_text(r);
    }
}

lb_status lb_sight_read(lb_vlm *vlm, const void *data, size_t n, int n_frames, lb_sight *sight, lb_error *error) {
    const lb_vlm_info *info = lb_vlm_get_info(vlm);
    *sight = (lb_sight){0};
    reader r = {data, (const uint8_t *)data + n, false};
    head h;
    get(&r, &h, sizeof h);
    r.bad |= h.n_frames != n_frames || n_frames < 1 || h.n_tiles < 1 || h.n_embd != info->n_embd ||
             h.n_rows != (int64_t)h.n_tiles * info->tokens_per_tile || h.rows_at < (int64_t)sizeof h ||
             h.rows_at % ALIGN != 0 || h.rows_at > (int64_t)n ||
             (uint64_t)h.n_rows != (n - (size_t)h.rows_at) / sizeof(float) / (size_t)info->n_embd;
    int64_t n_tiles = 0;
    if (!r.bad) {
        r.end = (const uint8_t *)data + h.rows_at;
        sight->tiles_per_frame = calloc((size_t)n_frames, sizeof *sight->tiles_per_frame);
        r.bad = !sight->tiles_per_frame;
        for (int i = 0; i < n_frames && !r.bad; i++) {
            int32_t tiles;
            get(&r, &tiles, sizeof tiles);
            r.bad |= tiles < 1;
            sight->tiles_per_frame[i] = tiles;
            n_tiles += tiles;
        }
        r.bad |= n_tiles != h.n_tiles;
    }
    if (!r.bad && h.detector)
        get_findings(&r, &h, &sight->findings);
    sight->n_tiles = h.n_tiles;
    lb_status status = !r.bad ? lb_vlm_borrow(vlm, (const float *)((const uint8_t *)data + h.rows_at), h.n_rows,
                                              &sight->pictures, error)
                              : lb_error_set(error, LB_STATUS_FORMAT, "what the cache has of the video is malformed");
    if (status != LB_STATUS_OK)
        lb_sight_free(sight);
    return status;
}
