#include "answer/prompt_internal.h"

#include "answer/text.h"
#include "base/error.h"
#include "dataset/dataset.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char PICTURE[] = "<image>";

/* The text so far, and its parts. failed: no memory; everything after it does nothing. */
typedef struct writer {
    lb_prompt prompt;
    size_t length, capacity, part_capacity;
    bool failed;
} writer;

static void write_bytes(writer *w, const char *bytes, size_t n) {
    if (w->failed)
        return;
    if (n >= w->capacity - w->length) {
        size_t capacity = w->capacity;
        while (capacity <= SIZE_MAX / 4 && n >= capacity - w->length)
            capacity *= 2;
        char *larger = n < capacity - w->length ? realloc(w->prompt.text, capacity) : NULL;
        if (!larger) {
            w->failed = true;
            return;
        }
        w->prompt.text = larger;
        w->capacity = capacity;
    }
    memcpy(w->prompt.text + w->length, bytes, n);
    w->length += n;
    w->prompt.text[w->length] = 0;
}

static void write_text(writer *w, const char *text) {
    write_bytes(w, text, strlen(text));
}

/* Ends the part that runs from the last part's end to here; an empty one is none. */
static void end_part(writer *w, int frame) {
    size_t n = w->prompt.n_parts;
    size_t start = n ? w->prompt.part[n - 1].offset + w->prompt.part[n - 1].length : 0;
    if (w->failed || start == w->length)
        return;
    if (n == w->part_capacity) {
        size_t capacity = n ? 2 * n : 32;
        lb_prompt_part *larger = realloc(w->prompt.part, capacity * sizeof *larger);
        if (!larger) {
            w->failed = true;
            return;
        }
        w->prompt.part = larger;
        w->part_capacity = capacity;
    }
    w->prompt.part[w->prompt.n_parts++] = (lb_prompt_part){frame, start, w->length - start};
}

static void write_frames(writer *w, int n_frames) {
    for (int i = 0; i < n_frames; i++) {
        char label[32];
        snprintf(label, sizeof label, "%sFrame%d: ", i ? "\n" : "", i + 1);
        write_text(w, label);
        end_part(w, -1);
        write_text(w, PICTURE);
        end_part(w, i);
    }
}

static void write_detections(writer *w, const lb_prompt_values *values) {
    bool first = true;
    for (int i = 0; i < values->n_frames; i++) {
        if (!values->detections[i] || !values->detections[i][0])
            continue;
        char label[32];
        snprintf(label, sizeof label, "%sFrame%d: ", first ? "" : "\n", i + 1);
        write_text(w, label);
        write_text(w, values->detections[i]);
        first = false;
    }
}

static void write_choices(writer *w, const lb_prompt_values *values) {
    for (int i = 0; i < values->n_choices; i++) {
        if (i)
            write_text(w, "\n");
        if (!lb_choice_label_bytes(values->choices[i], i))
            write_bytes(w, (const char[]){(char)('A' + i), '.', ' '}, 3);
        write_text(w, values->choices[i]);
    }
}

static bool has_detections(const lb_prompt_values *values) {
    for (int i = 0; values->detections && i < values->n_frames; i++)
        if (values->detections[i] && values->detections[i][0])
            return true;
    return false;
}

static lb_status check(const lb_prompt_values *values, lb_error *error) {
    if (values->n_frames < 1)
        return lb_error_set(error, LB_STATUS_INVALID_ARGUMENT, "a prompt of %d frames: at least one is needed",
                            values->n_frames);
    if (values->n_choices < LB_CHOICES_MIN || values->n_choices > LB_CHOICES_MAX)
        return lb_error_set(error, LB_STATUS_INVALID_ARGUMENT, "a prompt of %d choices: %d to %d are possible",
                            values->n_choices, LB_CHOICES_MIN, LB_CHOICES_MAX);
    if (lb_text_first_broken(values->question))
        return lb_error_set(error, LB_STATUS_INVALID_ARGUMENT, "the question is not UTF-8");
    for (int i = 0; i < values->n_choices; i++)
        if (lb_text_first_broken(values->choices[i]))
            return lb_error_set(error, LB_STATUS_INVALID_ARGUMENT, "choice %c is not UTF-8", 'A' + i);
    for (int i = 0; values->detections && i < values->n_frames; i++)
        if (values->detections[i] && lb_text_first_broken(values->detections[i]))
            return lb_error_set(error, LB_STATUS_INVALID_ARGUMENT, "the detections of frame %d are not UTF-8", i + 1);
    return LB_STATUS_OK;
}

lb_status lb_prompt_fill(const lb_prompt_template *prompt_template, const lb_prompt_values *values, lb_prompt *prompt,
                         lb_error *error) {
    *prompt = (lb_prompt){0};
    lb_status status = check(values, error);
    if (status != LB_STATUS_OK)
        return status;
    bool with_detections = has_detections(values);
    writer w = {.capacity = 4096};
    w.prompt.text = malloc(w.capacity);
    w.failed = !w.prompt.text;
    for (size_t i = 0; i < prompt_template->n_pieces; i++) {
        const lb_prompt_piece *piece = &prompt_template->piece[i];
        if (piece->is_in_detection_section && !with_detections)
            continue;
        switch (piece->kind) {
        case LB_PROMPT_KIND_TEXT:
            write_bytes(&w, prompt_template->text + piece->offset, piece->length);
            break;
        case LB_PROMPT_KIND_DETECTIONS:
            write_detections(&w, values);
            break;
        case LB_PROMPT_KIND_FRAMES:
            write_frames(&w, values->n_frames);
            break;
        case LB_PROMPT_KIND_QUESTION:
            write_text(&w, values->question);
            break;
        case LB_PROMPT_KIND_CHOICES:
            write_choices(&w, values);
            break;
        }
    }
    end_part(&w, -1);
    if (w.failed) {
        lb_prompt_free(&w.prompt);
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory for a prompt of %zu bytes", w.length);
    }
    *prompt = w.prompt;
    return LB_STATUS_OK;
}

void lb_prompt_free(lb_prompt *prompt) {
    if (!prompt)
        return;
    free(prompt->text);
    free(prompt->part);
    *prompt = (lb_prompt){0};
}
