/* A journal and its CSV out of given texts, for tests/checks/check_csv.py.
 *
 *     dump_csv JOURNAL CSV [COLUMNS]
 *
 * stdin: records of int32 index, int32 letter, then three texts (id, raw_response, prompt), each uint32 n and n bytes.
 */
#include "journal/journal.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static char *read_text(void) {
    uint32_t n;
    if (fread(&n, 4, 1, stdin) != 1)
        return NULL;
    char *text = calloc((size_t)n + 1, 1);
    return text && fread(text, 1, n, stdin) == n ? text : NULL;
}

int main(int argc, char **argv) {
    lb_journal *journal;
    lb_error error;
    int32_t head[2];
    lb_status status =
        argc < 3 ? LB_STATUS_INVALID_ARGUMENT : lb_journal_create(argv[1], NULL, NULL, 0, &journal, &error);
    if (status != LB_STATUS_OK) {
        fprintf(stderr, "dump_csv: %s\n", argc < 3 ? "JOURNAL CSV [COLUMNS]" : error.message);
        return 2;
    }
    while (status == LB_STATUS_OK && fread(head, 4, 2, stdin) == 2) {
        char *id = read_text(), *text = read_text(), *prompt = read_text();
        if (!id || !text || !prompt)
            return 2;
        lb_journal_record record = {.index = head[0],
                                    .letter = head[1],
                                    .id = id,
                                    .video_path = "v",
                                    .text = text,
                                    .prompt = prompt,
                                    .device_bytes = -1,
                                    .truth = -1};
        status = lb_journal_append(journal, &record, &error);
        free(id);
        free(text);
        free(prompt);
    }
    if (status == LB_STATUS_OK)
        status = lb_journal_write_csv(journal, argv[2], argc > 3 ? argv[3] : NULL, &error);
    if (status != LB_STATUS_OK)
        fprintf(stderr, "dump_csv: %s\n", error.message);
    lb_journal_close(journal);
    return status != LB_STATUS_OK;
}
