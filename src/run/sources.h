/* The weights files of a run, told apart by their SHA-256. A file of 16 GB takes half a minute to read: it is hashed by
 * a thread of its own while the run goes on (not at all when the cache folder knows the hash of that path, size and
 * times), and until then size and times stand for it.
 *
 *     lb_sources *sources = lb_sources_new();
 *     lb_sources_add(sources, "model", "InternVL3-8B.gguf");
 *     lb_sources_compare(sources, journal, "run.db", &error);      // a resumed run; a new one: _list
 *     lb_sources_hash(sources);                                    // starts the thread
 *     ...
 *     lb_sources_finish(sources, cancel, journal, "run.db", &error);
 *     lb_sources_free(sources);
 */
#ifndef LB_RUN_SOURCES_H
#define LB_RUN_SOURCES_H

#include "journal/journal.h"

typedef struct lb_sources lb_sources;

lb_sources *lb_sources_new(void); /* NULL: no memory */

/* The file at path, and the other parts of a split one (NAME-00001-of-00003.gguf). role: borrowed. A file that is not
 * there is left out: who loads it says so. path NULL: nothing. Small files (64 MiB together) are hashed at once. */
lb_status lb_sources_add(lb_sources *sources, const char *role, const char *path, lb_error *error);

/* As a new journal takes them, as far as they are known; [*n], good until the next call on sources. */
const lb_journal_source *lb_sources_list(lb_sources *sources, size_t *n);

/* REFUSED when a file is not the one that the journal (at path, for the message) was begun with. Another path does not
 * matter. One that was touched since is read here and now, which can take long; cancel: gives up with INTERRUPTED. */
lb_status lb_sources_compare(lb_sources *sources, lb_journal *journal, const char *path, const atomic_bool *cancel,
                             lb_error *error);

/* One hash for the weights that make what the language model is shown: those of all roles but "model". False: not all
 * of them have been read yet. Any thread. hex: [LB_SHA256_HEX] */
bool lb_sources_identity(const lb_sources *sources, char *hex);

/* Starts the thread. Those that lb_sources_identity tells of come first. */
void lb_sources_hash(lb_sources *sources);

/* Whether the thread is through and _finish has not been called since, without waiting for it. */
bool lb_sources_ready(const lb_sources *sources);

/* Waits for the thread, stores what it found, or REFUSED when that is not what the journal has. cancel: does not wait,
 * and leaves size and time alone in the journal (OK). */
lb_status lb_sources_finish(lb_sources *sources, const atomic_bool *cancel, lb_journal *journal, const char *path,
                            lb_error *error);

/* Stops the thread. NULL is allowed. */
void lb_sources_free(lb_sources *sources);

#endif
