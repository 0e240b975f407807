/* What a run asks for at most, from its questions file and the headers of its videos, for the memory plan.
 *
 *     lb_work *work;
 *     lb_work_find(dataset, &params, &work, &error);
 *     engine_params.work = lb_work_get(work);
 *     ...
 *     lb_work_free(work);
 */
#ifndef LB_RUN_WORK_H
#define LB_RUN_WORK_H

#include "dataset/dataset.h"
#include "run/engine.h"
#include "run/run.h"

typedef struct lb_work lb_work;

/* tile_size, shortest and longest edge of the detector: of the models' files. Videos whose headers could not be read in
 * the time that a plan may take (two seconds) count as the largest that the settings allow. */
lb_status lb_work_find(const lb_dataset *dataset, const lb_run_params *params, int tile_size, lb_work **work,
                       lb_error *error);
const lb_engine_work *lb_work_get(const lb_work *work); /* good until lb_work_free */
void lb_work_free(lb_work *work);

#endif
