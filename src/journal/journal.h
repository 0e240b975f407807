/* A run's journal: one SQLite file beside the CSV. An answer is stored as soon as it is there; the CSV is made from it.
 *
 *     lb_journal *journal;
 *     lb_journal_create("run.db", settings, &journal, &error);     // or lb_journal_open: go on with one
 *     lb_journal_append(journal, &record, &error);
 *     lb_journal_write_csv(journal, "run.csv", NULL, &error);      // complete or not at all
 *     lb_journal_close(journal);
 *
 * The tables, the CSV and the JSONL stand in docs/csv.md. One process writes a journal at a time (a lock on the file,
 * which its end releases, however it ends); a child that is forked while one is open must not use it. Calls on one
 * journal may come from any thread, one at a time.
 */
#ifndef LB_JOURNAL_JOURNAL_H
#define LB_JOURNAL_JOURNAL_H

#include "journal/fingerprint.h"
#include "lowbeam/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct lb_journal lb_journal;

/* A fingerprint of what the answers come from. kind: "weights" or "video"; name: "model", "mmproj", ... or the
 * video_path as the questions file has it. */
typedef struct lb_journal_source {
    const char *kind, *name;
    lb_fingerprint fingerprint;
} lb_journal_source;

/* Creates a new journal (an existing file is an error: REFUSED), which is there under its name when it is complete, not
 * before. sources: [n_sources] what it is bound to from the beginning. settings: name and value pairs that describe the
 * run, each name once, NULL-terminated: {"model", "x.gguf", "num_frames", "8", NULL}; may be NULL. path: any bytes, no
 * URI. Errors: REFUSED, IO (full disk, read-only folder), NOT_FOUND (no such folder), INVALID_ARGUMENT, OUT_OF_MEMORY;
 * no file is left then. */
lb_status lb_journal_create(const char *path, const char *const *settings, const lb_journal_source *sources,
                            size_t n_sources, lb_journal **journal, lb_error *error);

/* Whether a new one can have that name: REFUSED where something is there, with the id of the process that writes it. */
lb_status lb_journal_check_new(const char *path, lb_error *error);

/* Opens a journal to go on with it. Errors: NOT_FOUND, REFUSED (another process writes it, with that one's id), FORMAT
 * (no journal, damaged, cut short, another version's), IO (read-only), OUT_OF_MEMORY; the file is as it was then. */
lb_status lb_journal_open(const char *path, lb_journal **journal, lb_error *error);

/* Opens one for reading alone (lb_journal_each, _setting, _export, _count), also while another process writes it and
 * where the folder is read-only. Errors: as lb_journal_open's. */
lb_status lb_journal_open_read_only(const char *path, lb_journal **journal, lb_error *error);

/* The id of the process that writes the journal at path now; 0: none (or no such file). Not to be asked by a process
 * that has it open itself: closing the file would release SQLite's locks on it. */
long lb_journal_owner(const char *path);

/* A setting's value; NULL (with OK) when the journal has none of that name. The caller frees *value. */
lb_status lb_journal_setting(lb_journal *journal, const char *name, char **value, lb_error *error);

/* put replaces; durable when it returns. */
lb_status lb_journal_put_fingerprint(lb_journal *journal, const char *kind, const char *name,
                                     const lb_fingerprint *fingerprint, lb_error *error);
lb_status lb_journal_get_fingerprint(lb_journal *journal, const char *kind, const char *name,
                                     lb_fingerprint *fingerprint, bool *found, lb_error *error);

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
    double elapsed_s;     /* from its path to its answer, as if it had been the only one; 0: not asked */
    int64_t device_bytes; /* held by the process on the device when it was answered; -1 unknown */
    int truth;            /* -1 unknown */
    const char
        *adapted; /* what was done to fit that the user allowed, such as "num_frames=6", and in time; NULL: nothing */
} lb_journal_record;

/* Durable when it returns OK: a killed process or a power cut does not lose it. A second record with the same index
 * replaces the first. Errors: INVALID_ARGUMENT (letter, n_choices), IO, OUT_OF_MEMORY; nothing is stored then, and what
 * was stored before stays. */
lb_status lb_journal_append(lb_journal *journal, const lb_journal_record *record, lb_error *error);

/* What is stored of each question, by index. Stops at the first that fn does not return OK for. */
typedef struct lb_journal_state {
    int64_t index;
    int letter;            /* 0 for A ... */
    bool fallback, failed; /* failed: the model could not be asked */
} lb_journal_state;
typedef lb_status (*lb_journal_state_fn)(const lb_journal_state *state, void *user, lb_error *error);
lb_status lb_journal_each(lb_journal *journal, lb_journal_state_fn fn, void *user, lb_error *error);

typedef enum lb_journal_format { LB_JOURNAL_CSV, LB_JOURNAL_JSONL } lb_journal_format;

/* Whether columns is a list that lb_journal_export takes (INVALID_ARGUMENT if not), to be asked before a run. */
lb_status lb_journal_check_columns(const char *columns, lb_error *error);

/* Writes the answers, questions by index; those without a record are not in it. CSV: RFC 4180 quoting, CRLF line ends,
 * header first. JSONL: an object a line. columns: comma-separated names of the table's columns in the order wanted;
 * NULL: id, answer, raw_response, prompt in a CSV, all in JSONL. The file is written under a temporary name beside
 * path, fsynced and renamed: path never holds half of it, and one that was there stays when this fails. path NULL:
 * standard output.
 * Errors: INVALID_ARGUMENT, REFUSED (path is no regular file), NOT_FOUND (no such folder), IO, FORMAT (the journal is
 * damaged), OUT_OF_MEMORY. */
lb_status lb_journal_export(lb_journal *journal, const char *path, lb_journal_format format, const char *columns,
                            lb_error *error);

/* lb_journal_export as CSV. */
lb_status lb_journal_write_csv(lb_journal *journal, const char *path, const char *columns, lb_error *error);

typedef struct lb_journal_counts {
    int64_t n_records, n_fallbacks, n_errors;
    int64_t n_truths, n_right; /* accuracy: n_right / n_truths, over the records whose truth is known */
} lb_journal_counts;
lb_status lb_journal_count(lb_journal *journal, lb_journal_counts *counts, lb_error *error);

/* NULL is allowed. */
void lb_journal_close(lb_journal *journal);

#endif
