/* Grounding DINO's published folder (config.json, model.safetensors, vocab.txt, preprocessor_config.json) to one GGUF.
 *
 *     lb_convert_result result;
 *     lb_convert("grounding-dino-tiny", "grounding-dino-tiny-f16.gguf", LB_CONVERT_F16, NULL, &result, &error);
 *
 * Every tensor that the config asks for must be there in its shape, and nothing else: names that are missing or too
 * many are an error. What the file then holds stands in docs/grounding-dino.md. The GGUF appears under its name only
 * when it is whole and on the disk.
 */
#ifndef LB_DETECTOR_CONVERT_H
#define LB_DETECTOR_CONVERT_H

#include "lowbeam/status.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

/* The type of the large matrices. Biases, norms, everything that is added and not multiplied, and the small heads that
 * make boxes stay f32 always; what cannot be q8_0 (rows that are no multiple of 32) is f16 then. */
typedef enum lb_convert_type {
    LB_CONVERT_F16,
    LB_CONVERT_F32,
    LB_CONVERT_Q8_0,
    LB_CONVERT_F16_EXACT, /* as F16, and says in the file that products are to be in f32: lb_gdino_hparams.exact */
} lb_convert_type;

typedef struct lb_convert_result {
    size_t n_tensors, n_unused; /* written; in the checkpoint, known, and not used by the model */
    size_t n_bytes;             /* of the GGUF */
} lb_convert_result;

/* cancel: when it becomes true the work stops, INTERRUPTED; NULL: never. Errors: NOT_FOUND, IO, FORMAT (a malformed
 * file; missing, surplus or wrong tensors by name), UNSUPPORTED (settings, dtypes), NOT_FINITE (a weight),
 * OUT_OF_MEMORY. Memory: a few MB; the checkpoint is mapped. */
lb_status lb_convert(const char *folder, const char *out_path, lb_convert_type type, const atomic_bool *cancel,
                     lb_convert_result *result, lb_error *error);

#endif
