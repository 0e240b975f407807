#include "dataset/dataset_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *lb_json_kind(const json_t *value) {
    if (!value)
        return "nothing";
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "an array";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
    case JSON_REAL:
        return "a number";
    case JSON_TRUE:
    case JSON_FALSE:
        return "a boolean";
    case JSON_NULL:
        return "null";
    }
    return "something else";
}

static bool is_blank(const char *text) {
    return !text[strspn(text, " \t\r\n")];
}

size_t lb_choice_label_bytes(const char *choice, int index) {
    if (index < 0 || index >= LB_CHOICES_MAX || (choice[0] | 0x20) != 'a' + index)
        return 0;
    if (choice[1] != '.' && choice[1] != ')' && choice[1] != ':')
        return 0;
    return 2 + strspn(choice + 2, " \t");
}

/* The text of a field that has to be a string with something in it; "" and a fault when it is not. */
static char *required_text(lb_dataset_reader *reader, lb_question *question, const json_t *value, const char *field) {
    const char *text = json_string_value(value);
    if (!text) {
        lb_dataset_fault(reader, question, field, "found %s, a string is needed", lb_json_kind(value));
        text = "";
    } else if (is_blank(text)) {
        lb_dataset_fault(reader, question, field, "an empty string");
        text = "";
    }
    return lb_dataset_copy(reader, text);
}

static void read_choices(lb_dataset_reader *reader, const json_t *value, lb_question *question) {
    if (!json_is_array(value)) {
        lb_dataset_fault(reader, question, ".choices", "found %s, an array of %d to %d strings is needed",
                         lb_json_kind(value), LB_CHOICES_MIN, LB_CHOICES_MAX);
        return;
    }
    size_t n = json_array_size(value);
    if (n < LB_CHOICES_MIN || n > LB_CHOICES_MAX)
        lb_dataset_fault(reader, question, ".choices", "found %zu, %d to %d are needed", n, LB_CHOICES_MIN,
                         LB_CHOICES_MAX);
    for (size_t i = 0; i < n && i < LB_CHOICES_MAX; i++) {
        char field[32];
        snprintf(field, sizeof field, ".choices[%zu]", i);
        question->choice[i] = required_text(reader, question, json_array_get(value, i), field);
        if (!question->choice[i])
            return;
        question->n_choices = (int)i + 1;
    }
}

/* A lone letter, with or without '.', ')' or ':' after it: its place from 0; else -1. */
static int letter_of(const char *text) {
    int letter = (text[0] | 0x20) - 'a';
    size_t rest = 1;
    if (letter < 0 || letter > 25 || !text[0])
        return -1;
    if (text[rest] == '.' || text[rest] == ')' || text[rest] == ':')
        rest++;
    return is_blank(text + rest) ? letter : -1;
}

/* A letter always means the choice of that place, even where the text of another choice is that letter. Otherwise the
 * text of a choice counts, with or without its label on either side. */
static void read_answer(lb_dataset_reader *reader, const json_t *value, lb_question *question) {
    char shown[LB_SHORT_TEXT_BYTES];
    const char *text = json_string_value(value);
    if (!text) {
        lb_dataset_fault(reader, question, ".answer",
                         "found %s; give a letter or the text of a choice, or leave the field out",
                         lb_json_kind(value));
        return;
    }
    int letter = letter_of(text + strspn(text, " \t\r\n")), found = -1;
    if (letter >= 0 && letter < question->n_choices) {
        question->answer = letter;
        return;
    }
    for (int i = 0; i < question->n_choices; i++) {
        const char *choice = question->choice[i];
        if (strcmp(choice, text) &&
            strcmp(choice + lb_choice_label_bytes(choice, i), text + lb_choice_label_bytes(text, i)))
            continue;
        if (found >= 0) {
            lb_dataset_fault(reader, question, ".answer", "\"%s\" is the text of choices %c and %c; give the letter",
                             lb_short_text(text, shown), 'A' + found, 'A' + i);
            return;
        }
        found = i;
    }
    if (found < 0 && letter >= 0 && question->n_choices)
        lb_dataset_fault(reader, question, ".answer", "\"%s\" is none of the %d choices, A to %c",
                         lb_short_text(text, shown), question->n_choices, 'A' + question->n_choices - 1);
    else if (found < 0)
        lb_dataset_fault(reader, question, ".answer", "\"%s\" is neither a letter nor the text of a choice",
                         lb_short_text(text, shown));
    question->answer = found;
}

static bool is_time(const json_t *value) {
    return json_is_number(value) && json_number_value(value) >= 0;
}

static void read_support_frames(lb_dataset_reader *reader, const json_t *value, lb_question *question) {
    size_t n = json_is_array(value) ? json_array_size(value) : 1;
    if (!json_is_array(value) && !json_is_number(value)) {
        lb_dataset_fault(reader, question, ".support_frames", "found %s, seconds or an array of seconds are needed",
                         lb_json_kind(value));
        return;
    }
    for (size_t i = 0; i < n; i++) {
        const json_t *item = json_is_array(value) ? json_array_get(value, i) : value;
        if (is_time(item))
            continue;
        char field[48];
        snprintf(field, sizeof field, json_is_array(value) ? ".support_frames[%zu]" : ".support_frames", i);
        if (json_is_number(item))
            lb_dataset_fault(reader, question, field, "found %g, seconds from 0 up are needed",
                             json_number_value(item));
        else
            lb_dataset_fault(reader, question, field, "found %s, seconds are needed", lb_json_kind(item));
        return;
    }
    if (!n)
        return;
    question->support_frames = malloc(n * sizeof *question->support_frames);
    if (!question->support_frames) {
        reader->out_of_memory = true;
        return;
    }
    for (size_t i = 0; i < n; i++)
        question->support_frames[i] = json_number_value(json_is_array(value) ? json_array_get(value, i) : value);
    question->n_support_frames = n;
}

void lb_question_read(lb_dataset_reader *reader, const json_t *entry, lb_question *question) {
    const json_t *value;
    question->answer = -1;
    if (!json_is_object(entry)) {
        question->id = lb_dataset_copy(reader, "");
        question->text = lb_dataset_copy(reader, "");
        question->video_path = lb_dataset_copy(reader, "");
        lb_dataset_fault(reader, question, "", "found %s, an object is needed", lb_json_kind(entry));
        return;
    }
    /* The id first: the faults of the other fields name it. */
    question->id = required_text(reader, question, json_object_get(entry, "id"), ".id");
    question->text = required_text(reader, question, json_object_get(entry, "question"), ".question");
    read_choices(reader, json_object_get(entry, "choices"), question);
    question->video_path = required_text(reader, question, json_object_get(entry, "video_path"), ".video_path");
    if ((value = json_object_get(entry, "answer")))
        read_answer(reader, value, question);
    if ((value = json_object_get(entry, "support_frames")))
        read_support_frames(reader, value, question);
}

void lb_question_clear(lb_question *question) {
    free(question->id);
    free(question->text);
    for (int i = 0; i < question->n_choices; i++)
        free(question->choice[i]);
    free(question->video_path);
    free(question->support_frames);
    free(question->fault);
}
