#ifndef LB_DETECTOR_CONVERT_INTERNAL_H
#define LB_DETECTOR_CONVERT_INTERNAL_H

#include "detector/config.h"
#include "detector/convert.h"
#include "detector/safetensors.h"
#include "detector/tensors.h"
#include "detector/wordpiece.h"

#include <stdatomic.h>

/* source[i]: where expected tensor i stands in the checkpoint, its shape checked. [list->n], caller's.
 * Errors: FORMAT (missing, surplus, of another shape, tied heads that differ), UNSUPPORTED (dtype), OUT_OF_MEMORY. */
lb_status lb_convert_match(const char *path, const lb_safetensors *file, const lb_gdino_config *config,
                           const lb_gdino_tensors *list, const lb_safetensors_tensor **source, size_t *n_unused,
                           lb_error *error);

/* Writes the GGUF beside out_path and renames it. Errors: IO, NOT_FINITE, UNSUPPORTED, INTERRUPTED, OUT_OF_MEMORY. */
lb_status lb_convert_write(const char *out_path, lb_convert_type type, const lb_gdino_config *config,
                           const lb_wordpiece *vocabulary, const lb_gdino_tensors *list,
                           const lb_safetensors_tensor *const *source, const atomic_bool *cancel, size_t *n_bytes,
                           lb_error *error);

#endif
