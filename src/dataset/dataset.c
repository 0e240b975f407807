#include "dataset/dataset_internal.h"

#include "base/error.h"
#include "base/file.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* 100,000 questions take some 50 MB; a file past this is not a questions file. */
static const size_t MAX_FILE_BYTES = (size_t)1 << 30;

const char *lb_short_text(const char *text, char out[LB_SHORT_TEXT_BYTES]) {
    size_t n = strlen(text), room = LB_SHORT_TEXT_BYTES - 4;
    bool cut = n > room;
    if (cut)
        for (n = room; n && ((unsigned char)text[n] & 0xC0) == 0x80; n--)
            ;
    for (size_t i = 0; i < n; i++)
        out[i] = (unsigned char)text[i] < 0x20 || text[i] == 0x7f ? ' ' : text[i];
    strcpy(out + n, cut ? "..." : "");
    return out;
}

char *lb_dataset_copy(lb_dataset_reader *reader, const char *text) {
    char *copy = strdup(text);
    if (!copy)
        reader->out_of_memory = true;
    return copy;
}

void lb_dataset_fault(lb_dataset_reader *reader, lb_question *question, const char *field, const char *format, ...) {
    lb_fault_list *faults = reader->faults;
    char id[LB_SHORT_TEXT_BYTES], place[LB_SHORT_TEXT_BYTES + 128] = "", reason[1024], *message = NULL;
    va_list args;
    va_start(args, format);
    vsnprintf(reason, sizeof reason, format, args);
    va_end(args);
    if (question && question->id && question->id[0])
        snprintf(place, sizeof place, "data[%zu]%s (id \"%s\"): ", question->index, field,
                 lb_short_text(question->id, id));
    else if (question)
        snprintf(place, sizeof place, "data[%zu]%s (without an id): ", question->index, field);
    if (faults->n == reader->fault_capacity) {
        size_t capacity = faults->n ? 2 * faults->n : 16;
        lb_fault *larger = realloc(faults->fault, capacity * sizeof *larger);
        if (!larger) {
            reader->out_of_memory = true;
            return;
        }
        faults->fault = larger;
        reader->fault_capacity = capacity;
    }
    if (asprintf(&message, "%s: %s%s", reader->path, place, reason) < 0) {
        reader->out_of_memory = true;
        return;
    }
    if (question && !question->fault)
        question->fault = lb_dataset_copy(reader, message);
    faults->fault[faults->n++] = (lb_fault){question ? question->index : (size_t)-1, message};
}

/* jansson's objects serve as hash tables from a text to a place: their hash is seeded at random, so that no file can
 * choose its ids to collide. Returns the place that the key already has, or gives it this one. */
static size_t place_of(lb_dataset_reader *reader, json_t *table, const char *key, size_t place) {
    const json_t *known = json_object_get(table, key);
    if (known)
        return (size_t)json_integer_value(known);
    if (json_object_set_new_nocheck(table, key, json_integer((json_int_t)place)))
        reader->out_of_memory = true;
    return place;
}

static void check_ids(lb_dataset_reader *reader, lb_dataset *dataset) {
    json_t *seen = json_object();
    if (!seen)
        reader->out_of_memory = true;
    for (size_t i = 0; i < dataset->n_questions && !reader->out_of_memory; i++) {
        lb_question *question = &dataset->question[i];
        if (!question->id[0])
            continue; /* already a fault of its own */
        size_t first = place_of(reader, seen, question->id, i);
        if (first != i)
            lb_dataset_fault(reader, question, ".id", "the same id as data[%zu]", first);
    }
    json_decref(seen);
}

/* Two walks: the first counts each group's questions, the second deals them out. */
static void group_by_video(lb_dataset_reader *reader, lb_dataset *dataset) {
    size_t n = dataset->n_questions;
    json_t *seen = json_object();
    size_t *group_of = malloc((n + 1) * sizeof *group_of);
    dataset->group = calloc(n + 1, sizeof *dataset->group);
    if (!seen || !group_of || !dataset->group)
        reader->out_of_memory = true;
    for (size_t i = 0; i < n && !reader->out_of_memory; i++) {
        lb_question *question = &dataset->question[i];
        if (question->fault)
            continue;
        size_t g = place_of(reader, seen, question->video_path, dataset->n_groups);
        if (g == dataset->n_groups) {
            dataset->group[g].video_path = lb_dataset_copy(reader, question->video_path);
            dataset->n_groups++;
        }
        dataset->group[g].n_questions++;
        group_of[i] = g;
    }
    for (size_t g = 0; g < dataset->n_groups && !reader->out_of_memory; g++) {
        lb_video_group *group = &dataset->group[g];
        group->question = malloc(group->n_questions * sizeof *group->question);
        reader->out_of_memory |= !group->question;
        group->n_questions = 0; /* counted up again below */
    }
    for (size_t i = 0; i < n && !reader->out_of_memory; i++)
        if (!dataset->question[i].fault) {
            lb_video_group *group = &dataset->group[group_of[i]];
            group->question[group->n_questions++] = i;
        }
    free(group_of);
    json_decref(seen);
}

/* jansson's words, but for those that speak of its own flags. */
static const char *parser_text(const json_error_t *fault) {
    enum json_error_code code = json_error_code(fault);
    bool nul = code == json_error_null_character || code == json_error_null_byte_in_key;
    return nul ? "a string with \\u0000 in it" : fault->text;
}

static lb_status parse(const char *path, json_t **root, lb_error *error) {
    char *bytes;
    size_t n;
    lb_status status = lb_file_read(path, MAX_FILE_BYTES, &bytes, &n, error);
    if (status != LB_STATUS_OK)
        return status;
    json_error_t fault;
    size_t skip = n >= 3 && !memcmp(bytes, "\xEF\xBB\xBF", 3) ? 3 : 0; /* a byte order mark */
    if (n >= 2 && (!memcmp(bytes, "\xFF\xFE", 2) || !memcmp(bytes, "\xFE\xFF", 2))) {
        status = lb_error_set(error, LB_STATUS_FORMAT, "%s: is UTF-16; save it as UTF-8", path);
    } else {
        /* Integers as reals: one too large for 64 bits in a field that is none of ours is no fault. */
        *root = json_loadb(bytes + skip, n - skip, JSON_REJECT_DUPLICATES | JSON_DECODE_INT_AS_REAL, &fault);
        if (!*root && json_error_code(&fault) == json_error_out_of_memory)
            status = lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "%s: no memory for its %zu bytes", path, n);
        else if (!*root)
            status = lb_error_set(error, LB_STATUS_FORMAT, "%s: line %d, column %d: %s", path, fault.line, fault.column,
                                  parser_text(&fault));
    }
    free(bytes);
    return status;
}

/* What concerns the file as a whole; its "data" comes back. */
static lb_status check_root(lb_dataset_reader *reader, const json_t *root, const json_t **data, lb_error *error) {
    *data = json_object_get(root, "data");
    if (!json_is_object(root))
        return lb_error_set(error, LB_STATUS_FORMAT, "%s: found %s, an object {\"data\": [...]} is needed",
                            reader->path, lb_json_kind(root));
    if (!json_is_array(*data))
        return lb_error_set(error, LB_STATUS_FORMAT, "%s: \"data\": found %s, an array of questions is needed",
                            reader->path, lb_json_kind(*data));
    size_t n = json_array_size(*data);
    const json_t *count = json_object_get(root, "__count__");
    if (count && !json_is_number(count))
        lb_dataset_fault(reader, NULL, "", "__count__: found %s, a number is needed", lb_json_kind(count));
    else if (count && json_number_value(count) != (double)n)
        lb_dataset_fault(reader, NULL, "", "__count__: says %.17g, but \"data\" has %zu entries",
                         json_number_value(count), n);
    if (!n)
        lb_dataset_fault(reader, NULL, "", "\"data\": an empty array, no question to answer");
    return LB_STATUS_OK;
}

lb_status lb_dataset_read(const char *path, const lb_dataset_params *params, lb_dataset **dataset,
                          lb_fault_list *faults, lb_error *error) {
    lb_dataset_reader reader = {.path = path, .faults = faults};
    json_t *root = NULL;
    const json_t *data = NULL;
    lb_dataset *made = NULL;
    *dataset = NULL;
    *faults = (lb_fault_list){0};
    lb_status status = parse(path, &root, error);
    if (status != LB_STATUS_OK || (status = check_root(&reader, root, &data, error)) != LB_STATUS_OK)
        goto cleanup;

    size_t n = json_array_size(data);
    if (params && params->max_questions && params->max_questions < n)
        n = params->max_questions;
    made = calloc(1, sizeof *made);
    if (!made || !(made->path = strdup(path)) || !(made->question = calloc(n + 1, sizeof *made->question)))
        reader.out_of_memory = true;
    for (size_t i = 0; i < n && !reader.out_of_memory; i++) {
        made->question[i].index = i;
        made->n_questions = i + 1;
        lb_question_read(&reader, json_array_get(data, i), &made->question[i]);
        made->n_truths += made->question[i].answer >= 0;
    }
    if (!reader.out_of_memory)
        check_ids(&reader, made);
    if (!reader.out_of_memory)
        group_by_video(&reader, made);
    if (reader.out_of_memory) {
        status = lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "%s: no memory for %zu questions", path, n);
        goto cleanup;
    }
    *dataset = made;
    made = NULL;
cleanup:
    lb_dataset_free(made);
    if (status != LB_STATUS_OK)
        lb_fault_list_free(faults);
    json_decref(root);
    return status;
}

void lb_dataset_free(lb_dataset *dataset) {
    if (!dataset)
        return;
    for (size_t i = 0; i < dataset->n_questions; i++)
        lb_question_clear(&dataset->question[i]);
    for (size_t i = 0; i < dataset->n_groups; i++) {
        free(dataset->group[i].video_path);
        free(dataset->group[i].question);
    }
    free(dataset->question);
    free(dataset->group);
    free(dataset->path);
    free(dataset);
}

void lb_fault_list_free(lb_fault_list *faults) {
    if (!faults)
        return;
    for (size_t i = 0; i < faults->n; i++)
        free(faults->fault[i].message);
    free(faults->fault);
    *faults = (lb_fault_list){0};
}
