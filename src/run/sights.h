/* --cache-dir: what the models saw of each video (run/sight.h), kept on disk between runs. An entry is named by what it
 * follows from: the video's content, all that happens to it before the language model, and the weights of the vision
 * encoder and the detector.
 *
 *     lb_sights_open(params, engine, sources, &sights, &error);
 *     int fd = lb_sights_find(sights, clip->content.sha256);      // any thread; -1: not there
 *     ...
 *     lb_sights_keep(sights, clip->content.sha256, engine->vision, fd);
 *     lb_sights_close(sights);                                    // after lb_sources_finish
 *
 * Entries are written by a thread of its own. While the weights' hashes are not known yet they stand there under a
 * name for the time being.
 */
#ifndef LB_RUN_SIGHTS_H
#define LB_RUN_SIGHTS_H

#include "run/run.h"
#include "run/sources.h"

typedef struct lb_sights lb_sights;

/* engine, sources: the first child's state is copied, sources are used until _close. Errors: lb_store_open's, those of
 * the labels' file. */
lb_status lb_sights_open(const lb_run_params *params, const lb_child_state *engine, lb_sources *sources,
                         lb_sights **sights, lb_error *error);

/* An entry's file, from LB_STORE_HEADER (memory/store.h) on as lb_sight_write wrote it; the caller's. content: the
 * video's SHA-256. */
int lb_sights_find(lb_sights *sights, const char *content);

/* fd: of lb_sight_write, taken over. vision: of the child that saw it; another plan than the first child's is not kept.
 * Waits while two others are still to be written. */
void lb_sights_keep(lb_sights *sights, const char *content, const char *vision, int fd);

/* Writes what is still to be written; NULL is allowed. */
void lb_sights_close(lb_sights *sights);

#endif
