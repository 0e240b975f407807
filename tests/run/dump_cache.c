/* lowbeam.h asked about several videos in turn, for tests/run/test_cache_dir.py.
 *
 *     dump_cache LLM.gguf MMPROJ.gguf CACHE_BYTES CLIP CLIP...
 *
 * One frame a clip. stdout: a line for each clip: letter and probabilities, or the error; then "decoded N encoded N
 * most BYTES", the last of frames, tiles and embeddings together at any time, without what loading took.
 */
#include "lowbeam.h"

#include "base/log.h"
#include "memory/ledger.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int n_decoded, n_encoded;

static void count(lb_log_level level, const char *stage, const char *message, void *user) {
    (void)level, (void)stage, (void)user;
    n_decoded += strncmp(message, "clip=", 5) == 0;
    n_encoded += strncmp(message, "encoded tiles=", 14) == 0;
}

static size_t most_on_host(void) {
    size_t most = 0;
    for (int phase = 0; phase < LB_PHASE_COUNT; phase++) {
        const size_t bytes = lb_ledger_peak_on(0, (lb_phase)phase, LB_COMPONENT_FRAMES) +
                             lb_ledger_peak_on(0, (lb_phase)phase, LB_COMPONENT_EMBEDDINGS);
        most = bytes > most ? bytes : most;
    }
    return most;
}

int main(int argc, char **argv) {
    if (argc < 5) {
        fprintf(stderr, "dump_cache LLM MMPROJ CACHE_BYTES CLIP...\n");
        return 2;
    }
    lb_error error = {0};
    lb_engine_options options = lb_engine_default_options();
    options.model = argv[1];
    options.mmproj = argv[2];
    options.cache_bytes = strtoull(argv[3], NULL, 10);
    options.n_frames = 1;
    options.n_threads = 1;
    options.letter_only = true;
    lb_answerer *answerer;
    lb_log_set(count, NULL);
    lb_status status = lb_answerer_open(&options, &answerer, &error);
    if (status != LB_STATUS_OK) {
        fprintf(stderr, "%s\n", error.message);
        return 1;
    }
    const size_t base = lb_ledger_get(LB_COMPONENT_FRAMES); /* the encoder's stage for tiles on their way */
    static const char *const choices[] = {"A. a", "B. b"};
    for (int i = 4; i < argc; i++) {
        lb_answer answer;
        if (lb_answerer_ask(answerer, argv[i], "?", choices, 2, &answer, &error) == LB_STATUS_OK)
            printf("%c %.9g %.9g\n", answer.letter, (double)answer.probability[0], (double)answer.probability[1]);
        else
            printf("%s\n", error.message);
        lb_answer_free(&answer);
    }
    lb_answerer_close(answerer);
    printf("decoded %d encoded %d most %zu\n", n_decoded, n_encoded, most_on_host() - base);
    return lb_ledger_host_bytes() == 0 ? 0 : 3;
}
