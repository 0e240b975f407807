/* Preloaded (LD_PRELOAD): calls that do the work of a stage sleep before it, as a slow disk or card would make them
 * take longer. SLOW_FRAME_MS: each frame that FFmpeg decodes; SLOW_GRAPH_MS: each graph of the vision models;
 * SLOW_TOKEN_MS: each token of the language model. */
#include <dlfcn.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

/* As llama.h has it; only n_tokens is read. */
struct batch {
    int32_t n_tokens;
    int32_t *token;
    float *embd;
    int32_t *pos, *n_seq_id;
    int32_t **seq_id;
    int8_t *logits;
};

static void rest(const char *name, int times) {
    const char *text = getenv(name);
    const double ms = text ? strtod(text, NULL) * times : 0;
    if (ms > 0)
        nanosleep(&(struct timespec){(time_t)(ms / 1000), (long)(fmod(ms, 1000) * 1e6)}, NULL);
}

typedef int (*two_pointers)(void *, void *);
typedef int32_t (*decode_function)(void *, struct batch);

/* POSIX lets a data pointer become a function's in this way alone. */
static two_pointers original(const char *name) {
    two_pointers function;
    *(void **)&function = dlsym(RTLD_NEXT, name);
    return function;
}

int avcodec_receive_frame(void *codec, void *frame);
int avcodec_receive_frame(void *codec, void *frame) {
    const int code = original("avcodec_receive_frame")(codec, frame);
    if (code == 0)
        rest("SLOW_FRAME_MS", 1);
    return code;
}

int ggml_backend_graph_compute(void *backend, void *graph);
int ggml_backend_graph_compute(void *backend, void *graph) {
    rest("SLOW_GRAPH_MS", 1);
    return original("ggml_backend_graph_compute")(backend, graph);
}

int ggml_backend_graph_compute_async(void *backend, void *graph);
int ggml_backend_graph_compute_async(void *backend, void *graph) {
    rest("SLOW_GRAPH_MS", 1);
    return original("ggml_backend_graph_compute_async")(backend, graph);
}

int32_t llama_decode(void *ctx, struct batch batch);
int32_t llama_decode(void *ctx, struct batch batch) {
    rest("SLOW_TOKEN_MS", batch.n_tokens);
    decode_function function;
    *(void **)&function = dlsym(RTLD_NEXT, "llama_decode");
    return function(ctx, batch);
}
