/* Stands in the engine child's place for tests of the parent: answers at once, and says what it was asked, so that what
 * got lost on the way shows. fake_child engine-child FD */
#include "run/child.h"
#include "run/wire.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void answer(int fd, const json_t *m, const lb_wire_fds *passed) {
    const json_t *questions = json_object_get(m, "questions");
    struct stat st = {0};
    if (passed->n > 0 && fstat(passed->fd[0], &st) != 0)
        abort();
    for (size_t i = 0; i < json_array_size(questions); i++) {
        const json_t *q = json_array_get(questions, i), *choices = json_object_get(q, "choices");
        if (!json_is_true(json_object_get(q, "wanted")))
            continue;
        char text[512];
        snprintf(text, sizeof text, "%s, %zu choices, last %s, %zu frames, %lld bytes, %d folders",
                 json_string_value(json_object_get(q, "text")), json_array_size(choices),
                 json_string_value(json_array_get(choices, json_array_size(choices) - 1)),
                 json_array_size(json_object_get(m, "tiles_per_frame")), (long long)st.st_size,
                 json_is_string(json_object_get(q, "dump_dir")));
        lb_wire_send(fd,
                     json_pack("{s:s, s:i, s:i, s:s, s:i, s:b, s:s, s:s, s:[f, f], s:i}", "type", "reply", "question",
                               (int)i, "status", 0, "message", "", "letter", (int)i % 2, "fallback", 0, "text", text,
                               "prompt", "p", "letter_logits", 0.5, 0.25, "n_new_tokens", 3),
                     NULL, NULL);
    }
    lb_wire_send(fd, json_pack("{s:s}", "type", "done"), NULL, NULL);
}

int main(int argc, char **argv) {
    if (argc < 3 || strcmp(argv[1], LB_CHILD_VERB) != 0)
        return 2;
    const int fd = atoi(argv[2]);
    for (;;) {
        json_t *message = NULL;
        lb_wire_fds passed;
        const lb_status status = lb_wire_receive(fd, &message, &passed, NULL);
        if (status == LB_STATUS_INTERRUPTED)
            continue;
        if (status != LB_STATUS_OK)
            return 0;
        const char *type = lb_wire_type(message);
        if (strcmp(type, "open") == 0) {
            if (json_is_object(json_object_get(message, "work")))
                lb_wire_send(fd,
                             json_pack("{s:s, s:s, s:s, s:s, s:b}", "type", "plan", "text", "t", "json", "{}",
                                       "adapted", "", "fits", 1),
                             NULL, NULL);
            lb_wire_send(fd,
                         json_pack("{s:s, s:s, s:s, s:i, s:i}", "type", "ready", "device", "CPU", "description", "none",
                                   "image_size", 28, "n_parallel", 8),
                         NULL, NULL);
        } else if (strcmp(type, "video") == 0) {
            answer(fd, message, &passed);
        } else if (strcmp(type, "memory") == 0) {
            lb_wire_send(fd, json_pack("{s:s, s:s, s:s}", "type", "memory", "text", "t", "json", "{}"), NULL, NULL);
        }
        lb_wire_fds_close(&passed);
        json_decref(message);
    }
}
