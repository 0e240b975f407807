/* libFuzzer entry: a template, a question, choices and detections, with a byte 0xff between them: refused, or a prompt
 * whose parts cover its text and hold each frame's picture.
 * sources: src/answer/*.c src/dataset/*.c */
#include "answer/prompt.h"
#include "answer/text.h"
#include "fuzz.h"

#include <stdbool.h>

/* The build embeds prompts/vi.txt; here a short one stands in. */
extern const char lb_prompt_vi[];
extern const size_t lb_prompt_vi_n;
const char lb_prompt_vi[] = "{frames}\n{question}\n{choices}\n";
const size_t lb_prompt_vi_n = sizeof lb_prompt_vi - 1;

enum { FRAMES = 3, TEXTS_MAX = 9 };

static void check(const lb_prompt *prompt) {
    size_t at = 0;
    int frame = 0;
    LB_FUZZ_ASSERT(!lb_text_first_broken(prompt->text));
    for (size_t i = 0; i < prompt->n_parts; i++) {
        const lb_prompt_part *part = &prompt->part[i];
        LB_FUZZ_ASSERT(part->offset == at && part->length >= 1);
        at += part->length;
        if (part->frame >= 0) {
            LB_FUZZ_ASSERT(part->frame == frame++ && part->length == strlen("<image>"));
            LB_FUZZ_ASSERT(!memcmp(prompt->text + part->offset, "<image>", part->length));
        }
    }
    LB_FUZZ_ASSERT(at == strlen(prompt->text) && frame == FRAMES);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char path[LB_FUZZ_PATH_BYTES];
    char *text = lb_fuzz_text(&data, &size), *value[TEXTS_MAX];
    const int fd = lb_fuzz_file((const uint8_t *)text, strlen(text), path);
    int n = 0;
    while (n < 3 || (n < TEXTS_MAX && size))
        value[n++] = lb_fuzz_text(&data, &size);
    const char *const detections[FRAMES] = {value[0], NULL, value[n - 1]};
    lb_prompt_values values = {
        .n_frames = FRAMES,
        .detections = n % 2 ? detections : NULL,
        .question = value[0],
        .choices = (const char *const *)value + 1,
        .n_choices = n - 1,
    };
    lb_prompt_template *prompt_template;
    lb_error error = {0};
    if (lb_prompt_template_read(path, &prompt_template, &error) == LB_STATUS_OK) {
        (void)lb_prompt_template_frames_first(prompt_template);
        lb_prompt prompt;
        if (lb_prompt_fill(prompt_template, &values, &prompt, &error) == LB_STATUS_OK)
            check(&prompt);
        else
            LB_FUZZ_ASSERT(error.message[0] && !prompt.text);
        lb_prompt_free(&prompt);
        lb_prompt_template_free(prompt_template);
    } else {
        LB_FUZZ_ASSERT(error.message[0] && !prompt_template);
    }
    for (int i = 0; i < n; i++)
        free(value[i]);
    free(text);
    close(fd);
    return 0;
}
