#include "answer/prompt_internal.h"

#include "answer/text.h"
#include "base/error.h"
#include "base/file.h"

#include <stdlib.h>
#include <string.h>

enum { N_PLACEHOLDERS = 4, MAX_FILE_BYTES = 1 << 20 };

static const char *const PLACEHOLDER[N_PLACEHOLDERS] = {
    [LB_PROMPT_KIND_DETECTIONS] = "{detections}",
    [LB_PROMPT_KIND_FRAMES] = "{frames}",
    [LB_PROMPT_KIND_QUESTION] = "{question}",
    [LB_PROMPT_KIND_CHOICES] = "{choices}",
};

/* What a misspelt placeholder may consist of, to show it in a message. */
static const char NAME_BYTES[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_- ";

static int line_of(const char *text, size_t offset) {
    int line = 1;
    for (size_t i = 0; i < offset; i++)
        line += text[i] == '\n';
    return line;
}

/* As an editor of any system leaves it: a byte order mark, CRs before LFs, blanks on a line without anything else and
 * the line feeds at the end go. */
static size_t tidy(char *text, size_t n) {
    size_t from = n >= 3 && !memcmp(text, "\xEF\xBB\xBF", 3) ? 3 : 0, used = 0, line = 0, seen = 0;
    for (; from < n; from++) {
        if (text[from] == '\r' && from + 1 < n && text[from + 1] == '\n')
            continue;
        if (text[from] == '\n') {
            if (!seen)
                used = line; /* only blanks since the line began */
            line = used + 1;
            seen = 0;
        } else {
            seen += text[from] != ' ' && text[from] != '\t';
        }
        text[used++] = text[from];
    }
    while (used && text[used - 1] == '\n')
        used--;
    text[used] = 0;
    return used;
}

static lb_status check_bytes(const char *name, const char *text, size_t n, lb_error *error) {
    const char *broken = lb_text_first_broken(text);
    if (broken)
        return lb_error_set(error, LB_STATUS_FORMAT, "%s: line %d: byte 0x%02x is not UTF-8; save the file as UTF-8",
                            name, line_of(text, (size_t)(broken - text)), (unsigned char)*broken);
    if (strlen(text) != n)
        return lb_error_set(error, LB_STATUS_FORMAT, "%s: line %d: a NUL byte", name, line_of(text, strlen(text)));
    return LB_STATUS_OK;
}

/* Cuts the text at placeholders, doubled braces and line ends; a line feed is a piece of its own. */
static lb_status cut(const char *name, lb_prompt_template *t, lb_error *error) {
    const char *text = t->text;
    size_t n = strlen(text);
    for (size_t i = 0; i < n;) {
        lb_prompt_piece *piece = &t->piece[t->n_pieces++];
        *piece = (lb_prompt_piece){.kind = LB_PROMPT_KIND_TEXT, .offset = i};
        if ((text[i] == '{' || text[i] == '}') && text[i + 1] == text[i]) {
            piece->length = 1;
            i += 2;
        } else if (text[i] == '{') {
            int kind = 0, shown = 1 + (int)strspn(text + i + 1, NAME_BYTES);
            while (kind < N_PLACEHOLDERS && strncmp(text + i, PLACEHOLDER[kind], strlen(PLACEHOLDER[kind])))
                kind++;
            if (kind == N_PLACEHOLDERS)
                return lb_error_set(error, LB_STATUS_FORMAT,
                                    "%s: line %d: '%.*s%s' is none of {detections}, {frames}, {question}, {choices}; "
                                    "write '{{' for a brace",
                                    name, line_of(text, i), shown < 40 ? shown : 40, text + i,
                                    text[i + (size_t)shown] == '}' ? "}" : "");
            piece->kind = (lb_prompt_kind)kind;
            i += piece->length = strlen(PLACEHOLDER[kind]);
        } else if (text[i] == '}') {
            return lb_error_set(error, LB_STATUS_FORMAT, "%s: line %d: a '}' without its '{'; write '}}' for a brace",
                                name, line_of(text, i));
        } else {
            piece->length = text[i] == '\n' ? 1 : strcspn(text + i, "{}\n");
            i += piece->length;
        }
    }
    return LB_STATUS_OK;
}

static lb_status check_placeholders(const char *name, const lb_prompt_template *t, lb_error *error) {
    size_t n_of[N_PLACEHOLDERS + 1] = {0};
    for (size_t i = 0; i < t->n_pieces; i++) {
        lb_prompt_kind kind = t->piece[i].kind;
        if (++n_of[kind] == 2 && kind <= LB_PROMPT_KIND_FRAMES)
            return lb_error_set(error, LB_STATUS_FORMAT, "%s: line %d: %s a second time", name,
                                line_of(t->text, t->piece[i].offset), PLACEHOLDER[kind]);
    }
    for (int kind = LB_PROMPT_KIND_FRAMES; kind < N_PLACEHOLDERS; kind++)
        if (!n_of[kind])
            return lb_error_set(error, LB_STATUS_FORMAT, "%s: line %d: the file ends without %s", name,
                                line_of(t->text, strlen(t->text)), PLACEHOLDER[kind]);
    return LB_STATUS_OK;
}

/* A line feed where a line begins. */
static bool is_blank_line(const lb_prompt_template *t, size_t i) {
    size_t offset = t->piece[i].offset;
    return t->text[offset] == '\n' && (!offset || t->text[offset - 1] == '\n');
}

/* The section of {detections}: its paragraph, and the blank lines after it (all line feeds before it, when it is the
 * last), so that what is left has no gap. */
static lb_status mark_section(const char *name, lb_prompt_template *t, lb_error *error) {
    size_t first = 0, end, n = t->n_pieces;
    while (first < n && t->piece[first].kind != LB_PROMPT_KIND_DETECTIONS)
        first++;
    if (first == n)
        return LB_STATUS_OK;
    for (end = first; end < n && !is_blank_line(t, end);)
        end++;
    while (first && !is_blank_line(t, first - 1))
        first--;
    for (size_t i = first; i < end; i++)
        if (t->piece[i].kind < LB_PROMPT_KIND_TEXT && t->piece[i].kind != LB_PROMPT_KIND_DETECTIONS)
            return lb_error_set(
                error, LB_STATUS_FORMAT,
                "%s: line %d: %s in one paragraph with {detections}, which is left out where nothing is "
                "detected; part them by a blank line",
                name, line_of(t->text, t->piece[i].offset), PLACEHOLDER[t->piece[i].kind]);
    while (end < n && is_blank_line(t, end))
        end++;
    while (end == n && first && t->text[t->piece[first - 1].offset] == '\n')
        first--;
    for (size_t i = first; i < end; i++)
        t->piece[i].is_in_detection_section = true;
    return LB_STATUS_OK;
}

lb_status lb_prompt_template_read(const char *path, lb_prompt_template **prompt_template, lb_error *error) {
    const char *name = path ? path : "the built-in prompt";
    lb_status status = LB_STATUS_OK;
    size_t n = lb_prompt_vi_n;
    *prompt_template = NULL;
    lb_prompt_template *t = calloc(1, sizeof *t);
    if (t && path)
        status = lb_file_read(path, MAX_FILE_BYTES, &t->text, &n, error);
    else if (t && (t->text = malloc(n + 1)))
        memcpy(t->text, lb_prompt_vi, n + 1);
    if (status != LB_STATUS_OK)
        goto cleanup;
    if (t && t->text) {
        n = tidy(t->text, n);
        t->piece = malloc((n + 1) * sizeof *t->piece);
    }
    if (!t || !t->text || !t->piece) {
        status = lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "%s: no memory", name);
        goto cleanup;
    }
    if ((status = check_bytes(name, t->text, n, error)) != LB_STATUS_OK ||
        (status = cut(name, t, error)) != LB_STATUS_OK ||
        (status = check_placeholders(name, t, error)) != LB_STATUS_OK ||
        (status = mark_section(name, t, error)) != LB_STATUS_OK)
        goto cleanup;
    *prompt_template = t;
    t = NULL;
cleanup:
    lb_prompt_template_free(t);
    return status;
}

void lb_prompt_template_free(lb_prompt_template *prompt_template) {
    if (!prompt_template)
        return;
    free(prompt_template->text);
    free(prompt_template->piece);
    free(prompt_template);
}

const char *lb_prompt_template_text(const lb_prompt_template *prompt_template) {
    return prompt_template->text;
}

bool lb_prompt_template_frames_first(const lb_prompt_template *prompt_template) {
    for (size_t i = 0;; i++) {
        lb_prompt_kind kind = prompt_template->piece[i].kind;
        if (kind != LB_PROMPT_KIND_TEXT && kind != LB_PROMPT_KIND_DETECTIONS)
            return kind == LB_PROMPT_KIND_FRAMES; /* {frames} is always there */
    }
}
