/* One question about one clip: answer_one LLM.gguf MMPROJ.gguf CLIP QUESTION CHOICE CHOICE... */
#include <lowbeam.h>
#include <stdio.h>

int main(int argc, char **argv) {
    if (argc < 7)
        return fprintf(stderr, "answer_one LLM.gguf MMPROJ.gguf CLIP QUESTION CHOICE CHOICE...\n"), 2;
    lb_error error = {0};
    lb_engine_options options = lb_engine_default_options();
    options.model = argv[1];
    options.mmproj = argv[2];
    options.max_new_tokens = 16;
    lb_answerer *answerer;
    lb_answer answer = {0};
    lb_status status = lb_answerer_open(&options, &answerer, &error);
    if (status == LB_STATUS_OK)
        status = lb_answerer_ask(answerer, argv[3], argv[4], (const char *const *)argv + 5, argc - 5, &answer, &error);
    if (status == LB_STATUS_OK)
        printf("%c (%.0f %%): %s\n", answer.letter, 100 * answer.probability[answer.letter - 'A'], answer.text);
    else
        fprintf(stderr, "%s\n", error.message);
    lb_answer_free(&answer);
    lb_answerer_close(answerer);
    return status == LB_STATUS_OK ? 0 : 1;
}
