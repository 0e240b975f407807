/* Which files --model, --mmproj and --detector mean. */
#ifndef LB_CLI_MODELS_H
#define LB_CLI_MODELS_H

#include "lowbeam/status.h"

#include <limits.h>

typedef struct lb_model_files {
    char model[PATH_MAX], mmproj[PATH_MAX];
} lb_model_files;

/* model: a GGUF file, a folder that holds GGUF files, or a name such as OpenGVLab/InternVL3-8B, which is a folder if
 * there is one; NULL: the models that ship with lowbeam. mmproj: NULL: the one beside the model.
 * Errors: NOT_FOUND with the commands that make the files; INVALID_ARGUMENT where several would do, naming them. */
lb_status lb_models_find(const char *model, const char *mmproj, lb_model_files *files, lb_error *error);

/* name: a GGUF file, a folder that holds the GGUF of a detector, or a name such as IDEA-Research/grounding-dino-tiny,
 * which is a folder if there is one; NULL: the detector that ships with lowbeam. path: [PATH_MAX].
 * Errors: NOT_FOUND with the commands that make the file; INVALID_ARGUMENT where several would do, naming them. */
lb_status lb_models_find_detector(const char *name, char *path, lb_error *error);

#endif
