/* The tensors that a Grounding DINO checkpoint must have, derived from its config: names as transformers' state dict
 * saves them, shapes as PyTorch prints them.
 *
 *     lb_gdino_tensors *list;
 *     lb_gdino_tensors_list(&config, &list, &error);
 *     for (size_t i = 0; i < list->n; i++) use(list->tensor[i].name, list->tensor[i].shape);
 *     lb_gdino_tensors_free(list);
 */
#ifndef LB_DETECTOR_TENSORS_H
#define LB_DETECTOR_TENSORS_H

#include "detector/config.h"

#include <stddef.h>
#include <stdint.h>

typedef struct lb_gdino_tensor {
    char name[192];
    int n_dims;
    int64_t shape[4]; /* [n_dims], the last axis is the fastest */
} lb_gdino_tensor;

typedef struct lb_gdino_tensors {
    size_t n;
    lb_gdino_tensor *tensor;
    size_t n_allocated;
} lb_gdino_tensors;

/* Errors: OUT_OF_MEMORY. */
lb_status lb_gdino_tensors_list(const lb_gdino_config *config, lb_gdino_tensors **list, lb_error *error);
void lb_gdino_tensors_free(lb_gdino_tensors *list);

/* Tensors that some checkpoints carry and the model does not use: buffers that are computed (relative_position_index,
 * position_ids, num_batches_tracked, special_tokens), BERT's pooler, the backbone's last norm (each level has its own
 * one). */
bool lb_gdino_tensor_unused(const char *name);

#endif
