/* libFuzzer entry: any bytes as a questions file: refused, or questions whose faults are named and whose groups hold
 * each sound one once.
 * sources: src/dataset/*.c src/answer/text.c */
#include "answer/text.h"
#include "dataset/dataset.h"
#include "fuzz.h"

#include <stdbool.h>

static void check_question(const lb_question *question, size_t i) {
    LB_FUZZ_ASSERT(question->index == i && question->id && question->text && question->video_path);
    LB_FUZZ_ASSERT(!lb_text_first_broken(question->id) && !lb_text_first_broken(question->text));
    if (question->fault)
        return;
    LB_FUZZ_ASSERT(question->n_choices >= LB_CHOICES_MIN && question->n_choices <= LB_CHOICES_MAX);
    LB_FUZZ_ASSERT(question->answer >= -1 && question->answer < question->n_choices);
    for (int k = 0; k < question->n_choices; k++) {
        LB_FUZZ_ASSERT(question->choice[k] && !lb_text_first_broken(question->choice[k]));
        LB_FUZZ_ASSERT(lb_choice_label_bytes(question->choice[k], k) <= strlen(question->choice[k]));
    }
}

static void check_groups(const lb_dataset *dataset) {
    bool *seen = calloc(dataset->n_questions + 1, sizeof *seen);
    LB_FUZZ_ASSERT(seen);
    for (size_t g = 0; g < dataset->n_groups; g++)
        for (size_t k = 0; k < dataset->group[g].n_questions; k++) {
            const size_t q = dataset->group[g].question[k];
            LB_FUZZ_ASSERT(q < dataset->n_questions && !seen[q] && !dataset->question[q].fault);
            LB_FUZZ_ASSERT(!strcmp(dataset->question[q].video_path, dataset->group[g].video_path));
            seen[q] = true;
        }
    for (size_t q = 0; q < dataset->n_questions; q++)
        LB_FUZZ_ASSERT(seen[q] == !dataset->question[q].fault);
    free(seen);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char path[LB_FUZZ_PATH_BYTES];
    const int fd = lb_fuzz_file(data, size, path);
    lb_dataset *dataset;
    lb_fault_list faults = {0};
    lb_error error = {0};
    if (lb_dataset_read(path, NULL, &dataset, &faults, &error) == LB_STATUS_OK) {
        for (size_t i = 0; i < dataset->n_questions; i++)
            check_question(&dataset->question[i], i);
        for (size_t i = 0; i < faults.n; i++)
            LB_FUZZ_ASSERT(faults.fault[i].message && !strpbrk(faults.fault[i].message, "\n\r\033"));
        check_groups(dataset);
    } else {
        LB_FUZZ_ASSERT(error.message[0] && !dataset && !faults.n);
    }
    lb_dataset_free(dataset);
    lb_fault_list_free(&faults);
    close(fd);
    return 0;
}
