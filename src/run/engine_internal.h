/* Shared by the engine's files, one a phase of a video: engine.c loads the models and leads through the phases,
 * engine_sight.c detects and encodes, engine_batch.c prompts and generates. */
#ifndef LB_RUN_ENGINE_INTERNAL_H
#define LB_RUN_ENGINE_INTERNAL_H

#include "answer/prompt.h"
#include "run/engine.h"
#include "run/pace.h"
#include "run/sight.h"
#include "vlm/tokenizer.h"

#include <limits.h>

struct lb_engine {
    lb_engine_params params;
    char *system;
    lb_vlm *vlm;
    lb_find *find; /* NULL: no detector */
    lb_tokenizer *tokenizer;
    lb_prompt_template *prompt_template;
    lb_plan *plan;                    /* NULL: none */
    char quantized[PATH_MAX];         /* the model in use where the plan has fewer bits */
    lb_device device[LB_DEVICES_MAX]; /* of the plan, to be asked what is used */
    size_t used[LB_DEVICES_MAX][LB_PHASE_COUNT];
    int32_t letter_token[LB_CHOICES_MAX]; /* "A", "B" ... as the first token of an answer */
    size_t vlm_allocated, vlm_reserved;   /* before the detector was loaded */
    bool said_not_shared;
    lb_pace pace; /* with deadlines alone */
};

/* One call of lb_engine_answer. */
typedef struct lb_session {
    lb_engine *engine;
    const lb_engine_clip *clip;
    const lb_engine_question *questions;
    int n;
    lb_engine_callbacks callbacks;
    lb_sight sight;
    size_t reserved;       /* of the cache, for the sight's embeddings */
    struct lb_item *ready; /* [n_ready] the first questions' prompts, made while the tiles are encoded */
    int n_ready;
    int32_t *prefix;
    int n_prefix;
    int batch_size;
    /* engine_deadline.c; of a clip with left_s alone */
    double start_s, shared_s; /* when the call began; how long it took to what the questions share */
    double batch_start_s;     /* of the batch that is being answered */
    bool hurried;             /* frames or crops are left out */
    bool prefix_noted;
    int max_crops;       /* a frame's, that were let in */
    lb_engine_clip thin; /* clip, where frames are left out */
    void *thin_memory[4];
    size_t thin_bytes;
} lb_session;

/* Before a plan is made, and before anything is opened. Errors: INVALID_ARGUMENT (the system message is not UTF-8). */
lb_status lb_engine_check_system(const lb_engine_params *params, lb_error *error);

/* Enters a phase into the ledger; what the devices say at the end of the one before is noted (engine_memory.c). */
void lb_engine_phase(lb_engine *engine, lb_phase phase);

/* The longest question's tokens and those of the shared beginning, pictures not counted. */
lb_status lb_engine_count_tokens(const lb_tokenizer *tokenizer, const lb_prompt_template *prompt_template,
                                 const char *system, const lb_engine_params *params, const char *longest_text,
                                 int *text_tokens, int *question_tokens, lb_error *error);

/* How fast the models are, for the first video's deadline. work: for the size of its frames; may be NULL. */
lb_status lb_engine_measure_pace(lb_engine *engine, const lb_engine_work *work, lb_error *error);

/* Before "detect": leaves out what there is no time for. Between "detect" and "encode": crops alone. */
lb_status lb_session_hurry(lb_session *s, lb_error *error);
lb_status lb_session_hurry_crops(lb_session *s, lb_error *error);
void lb_session_note_sight(lb_session *s); /* after "encode" */
void lb_session_hurry_end(lb_session *s);

/* Phase "detect": the detector over the clip's frames, its boxes cut to what is kept. Without a detector nothing is
 * done. Errors: those of lb_findings_make. */
lb_status lb_session_detect(lb_session *s, lb_error *error);

/* Phase "encode": the frames' tiles and the crops, which are cut while the first tiles are encoded, to embeddings.
 * Tiles that no prompt has room for are only counted, and each prompt says so for itself. */
lb_status lb_session_encode(lb_session *s, lb_error *error);

/* Makes prompts and tokens of the first questions; needs the sight's findings and tiles_per_frame, not its embeddings,
 * and may run beside the encoder. */
void lb_session_prepare(lb_session *s);
void lb_session_free(lb_session *s); /* all but the sight */

/* Tokens of the first batch's prompts, what they share counted once, without pictures and detections. */
int lb_session_text_tokens(lb_session *s);

/* Before the phases "prompt" and "generate": what all questions begin with. */
void lb_session_find_prefix(lb_session *s);

/* Phases "prompt" and "generate", for n questions from first on. */
void lb_session_answer_batch(lb_session *s, int first, int n);

/* The same error for each of them that is wanted. */
void lb_session_fail(const lb_session *s, int first, int n, const lb_error *error);

#endif
