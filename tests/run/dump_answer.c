/* lowbeam.h's answers as lines for tests/run/test_detector.py.
 *
 *     dump_answer LLM.gguf MMPROJ.gguf DETECTOR.gguf|- MAX_DETECTIONS CLIP QUESTION CHOICE CHOICE...
 *
 * One frame, every box, exact. The question is put twice: the second time what the models saw is kept. stdout, a line
 * each: letter, number of prompt tokens, probabilities.
 */
#include "lowbeam.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv) {
    if (argc < 9) {
        fprintf(stderr, "dump_answer LLM MMPROJ DETECTOR|- MAX_DETECTIONS CLIP QUESTION CHOICE CHOICE...\n");
        return 2;
    }
    lb_error error = {0};
    lb_engine_options options = lb_engine_default_options();
    options.model = argv[1];
    options.mmproj = argv[2];
    options.detector = strcmp(argv[3], "-") ? argv[3] : NULL;
    options.max_detections = atoi(argv[4]);
    options.box_threshold = 0;
    options.text_threshold = 1;
    options.n_frames = 1;
    options.n_threads = 1;
    options.exact = true;
    options.max_new_tokens = 4;
    lb_answerer *answerer;
    lb_status status = lb_answerer_open(&options, &answerer, &error);
    for (int i = 0; i < 2 && status == LB_STATUS_OK; i++) {
        lb_answer answer;
        status = lb_answerer_ask(answerer, argv[5], argv[6], (const char *const *)argv + 7, argc - 7, &answer, &error);
        if (status == LB_STATUS_OK)
            printf("%c %d", answer.letter, answer.n_prompt_tokens);
        for (int k = 0; k < argc - 7 && status == LB_STATUS_OK; k++)
            printf(" %.9g", (double)answer.probability[k]);
        printf("\n");
        lb_answer_free(&answer);
    }
    if (status != LB_STATUS_OK)
        fprintf(stderr, "%s\n", error.message);
    lb_answerer_close(answerer);
    return status == LB_STATUS_OK ? 0 : 1;
}
