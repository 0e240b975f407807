/* A run's journal: one SQLite file beside the CSV. An answer is stored as soon as it is there; the CSV is made from it.
 *
 *     lb_journal *journal;
 *     lb_journal_create("run.db", settings, &journal, &error);
 *     lb_journal_append(journal, &record, &error);
 *     lb_journal_write_csv(journal, "run.csv", NULL, &error);      // complete or not at all
 *     lb_journal_close(journal);
 *
 * The tables and the CSV stand in docs/csv.md. A journal belongs to the process that made it: a child that is forked
 * while one is open must not use it. Calls on one journal may come from any thread, one at a time.
 */
#ifndef LB_JOURNAL_JOURNAL_H
#define LB_JOURNAL_JOURNAL_H

#include "lowbeam/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct lb_journal lb_journal;

/* Creates a new journal (an existing file is an error: REFUSED). settings: name and value pairs that describe the run,
 * each name once, NULL-terminated: {"model", "x.gguf", "num_frames", "8", NULL}; may be NULL. path: any bytes, no URI.
 * Errors: REFUSED, IO (full disk, read-only folder), NOT_FOUND (no such folder), INVALID_ARGUMENT, OUT_OF_MEMORY; no
 * file is left then. */
lb_status lb_journal_create(const char *path, const char *const *settings, lb_journal **journal, lb_error *error);

/* What one question came to. All strings UTF-8 (broken ones are stored with U+FFFD); borrowed for the call. */
typedef struct lb_journal_record {
    int64_t index; /* place in the questions file, from 0: the CSV's order */
    const char *id;
    const char *video_path;
    int letter;                        /* 0 for A ... */
    bool fallback;                     /* the letter was not given by the model's text */
    const char *text;                  /* raw_response: what the model said, or the error */
    const char *prompt;                /* the template filled in; "" when it did not come to that */
    const char *error;                 /* NULL when the model answered */
    int n_choices;                     /* at most 8 */
    const float *letter_logits;        /* [n_choices] at the first answer token; NULL when not evaluated */
    const float *letter_probabilities; /* [n_choices], --answer letter only; else NULL */
    int n_prompt_tokens, n_new_tokens;
    double decode_s, detect_s, encode_s, prompt_s, generate_s; /* this question's share of its video's stages */
    int64_t device_bytes; /* held by the process on the device when it was answered; -1 unknown */
    int truth;            /* -1 unknown */
} lb_journal_record;

/* Durable when it returns OK: a killed process or a power cut does not lose it. A second record with the same index
 * replaces the first. Errors: INVALID_ARGUMENT (letter, n_choices), IO, OUT_OF_MEMORY; nothing is stored then, and what
 * was stored before stays. */
lb_status lb_journal_append(lb_journal *journal, const lb_journal_record *record, lb_error *error);

/* Whether columns is a list that lb_journal_write_csv takes (INVALID_ARGUMENT if not), to be asked before a run. */
lb_status lb_journal_check_columns(const char *columns, lb_error *error);

/* Writes the CSV under a temporary name beside path, fsyncs it and renames it; path never holds half a file, and one
 * that was there stays when this fails. RFC 4180 quoting, CRLF line ends, header first, questions by index; those
 * without a record are not in it. columns: comma-separated names out of id, answer, raw_response, prompt; NULL: all
 * four. Errors: INVALID_ARGUMENT, REFUSED (path is no regular file), NOT_FOUND (no such folder), IO, OUT_OF_MEMORY. */
lb_status lb_journal_write_csv(lb_journal *journal, const char *path, const char *columns, lb_error *error);

typedef struct lb_journal_counts {
    int64_t n_records, n_fallbacks, n_errors;
    int64_t n_truths, n_right; /* accuracy: n_right / n_truths, over the records whose truth is known */
} lb_journal_counts;
lb_status lb_journal_count(lb_journal *journal, lb_journal_counts *counts, lb_error *error);

/* NULL is allowed. */
void lb_journal_close(lb_journal *journal);

#endif
