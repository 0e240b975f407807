#include "detector/names.h"

#include "base/error.h"

#include <string.h>

typedef struct replacement {
    const char *from, *to;
} replacement;

static const replacement fronts[] = {
    {"model.backbone.conv_encoder.model.", "swin."},
    {"model.text_backbone.", "bert."},
    {"model.encoder.layers.", "enc."},
    {"model.decoder.layers.", "dec."},
    {"model.decoder.", "dec."},
    {"model.", ""},
};

/* "attention.output.dense" must come before "output.dense". */
static const replacement inside[] = {
    {"relative_position_bias_table", "rel_pos_table"},
    {"attention.self.", "attn."},
    {"attention.output.dense", "attn_out"},
    {"intermediate.dense", "up"},
    {"output.dense", "down"},
};

/* text has room: a replacement is never longer than what it replaces. */
static void replace_at(char *text, size_t at, const replacement *r) {
    size_t from = strlen(r->from), to = strlen(r->to);
    memmove(text + at + to, text + at + from, strlen(text + at + from) + 1);
    memcpy(text + at, r->to, to);
}

static void replace_first(char *text, const replacement *r) {
    char *found = strstr(text, r->from);
    if (found)
        replace_at(text, (size_t)(found - text), r);
}

lb_status lb_gdino_name(const char *checkpoint_name, char out[LB_GDINO_NAME_BYTES], lb_error *error) {
    char text[256];
    size_t length = strlen(checkpoint_name);
    out[0] = 0;
    if (length >= sizeof text)
        return lb_error_set(error, LB_STATUS_UNSUPPORTED, "tensor %.64s...: the name is %zu bytes long",
                            checkpoint_name, length);
    memcpy(text, checkpoint_name, length + 1);
    for (size_t i = 0; i < sizeof fronts / sizeof *fronts; i++) {
        if (strncmp(text, fronts[i].from, strlen(fronts[i].from)) == 0) {
            replace_at(text, 0, &fronts[i]);
            break;
        }
    }
    int is_swin = strncmp(text, "swin.", 5) == 0, is_bert = strncmp(text, "bert.", 5) == 0;
    if (is_swin && strncmp(text + 5, "encoder.layers.", 15) == 0)
        replace_at(text, 5, &(replacement){"encoder.layers.", ""});
    if (is_swin || is_bert)
        for (size_t i = 0; i < sizeof inside / sizeof *inside; i++)
            replace_first(text, &inside[i]);
    length = strlen(text);
    if (length >= LB_GDINO_NAME_BYTES)
        return lb_error_set(error, LB_STATUS_UNSUPPORTED, "tensor %s: '%s' is %zu bytes long, ggml keeps 63",
                            checkpoint_name, text, length);
    memcpy(out, text, length + 1);
    return LB_STATUS_OK;
}
