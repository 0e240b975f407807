/* Labels as tokens -> text features. BertModel with generate_masks_with_special_tokens_and_transfer_map: a token sees
 * the tokens of its own phrase alone, and positions begin again with each phrase. */
#include "detector/model_internal.h"
#include "nn/gelu.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static bool is_special(int32_t token, const int32_t special[4]) {
    return token == special[0] || token == special[1] || token == special[2] || token == special[3];
}

/* A phrase ends with the special token that closes it, which belongs to it. What the first or the last token of the
 * whole text closes is no phrase: such tokens ([CLS], [SEP], words without a full stop) see themselves alone, at
 * position 0. */
void lb_gdino_phrases(const int32_t *tokens, int n, const int32_t special[4], uint8_t *mask, int32_t *position) {
    memset(mask, 0, (size_t)n * (size_t)n);
    for (int first = 0, last; first < n; first = last + 1) {
        last = first;
        while (last < n && !is_special(tokens[last], special))
            last++;
        const bool phrase = last != 0 && last < n - 1;
        for (int i = first; i <= last && i < n; i++) {
            position[i] = phrase ? i - first : 0;
            mask[i * n + i] = 1;
            for (int k = first; k <= last && phrase; k++)
                mask[i * n + k] = 1;
        }
    }
}

static struct ggml_tensor *attention_mask(lb_gdino_graph *g, const uint8_t *mask) {
    const size_t n = (size_t)g->n_text * (size_t)g->n_text;
    float *values = malloc(n * sizeof *values);
    for (size_t i = 0; values && i < n; i++)
        values[i] = mask[i] ? 0.0f : -INFINITY;
    return lb_gdino_constant(g, GGML_TYPE_F32, g->n_text, g->n_text, 1, 1, values);
}

static struct ggml_tensor *bert_layer(lb_gdino_graph *g, const lb_bert_layer *layer, const lb_bert_hparams *hp,
                                      struct ggml_tensor *x, struct ggml_tensor *mask) {
    struct ggml_context *ctx = g->ctx;
    const int64_t n = x->ne[0], n_text = x->ne[1], d_head = n / hp->num_attention_heads;
    struct ggml_tensor *qkv = lb_linear_apply(g, &layer->qkv, x), *part[3]; /* ne = [3 hidden, T] */
    for (int i = 0; i < 3; i++)
        part[i] = ggml_view_4d(ctx, qkv, d_head, hp->num_attention_heads, n_text, 1, (size_t)d_head * 4, qkv->nb[1],
                               qkv->nb[2], (size_t)(i * n) * 4);
    struct ggml_tensor *cur = lb_attend(g, part[0], part[1], part[2], mask, 1.0f / sqrtf((float)d_head));
    cur = ggml_add(ctx, lb_linear_apply(g, &layer->out, cur), x);
    x = lb_norm_apply(ctx, &layer->attention_norm, cur, hp->layer_norm_eps);
    cur = lb_gelu(ctx, g->way == LB_GDINO_BY_FUNCTION, lb_gdino_product(g, layer->up.w, x), layer->up.b);
    cur = ggml_add(ctx, lb_linear_apply(g, &layer->down, cur), x);
    return lb_norm_apply(ctx, &layer->output_norm, cur, hp->layer_norm_eps);
}

struct ggml_tensor *lb_gdino_text_graph(lb_gdino_graph *g, const uint8_t *mask, const int32_t *position) {
    struct ggml_context *ctx = g->ctx;
    const lb_bert *bert = &g->model->bert;
    const lb_bert_hparams *hp = &g->model->hparams.bert;
    struct ggml_tensor *tokens = lb_gdino_input(g, "tokens", GGML_TYPE_I32, g->n_text, 1, 1);
    int32_t *positions = malloc((size_t)g->n_text * sizeof *positions);
    if (positions)
        memcpy(positions, position, (size_t)g->n_text * sizeof *positions);
    struct ggml_tensor *at = lb_gdino_constant(g, GGML_TYPE_I32, g->n_text, 1, 1, 1, positions);
    struct ggml_tensor *sees = attention_mask(g, mask);

    struct ggml_tensor *type = ggml_view_1d(ctx, bert->type, bert->type->ne[0], 0);
    struct ggml_tensor *x = ggml_add(ctx, ggml_get_rows(ctx, bert->word, tokens), type);
    x = ggml_add(ctx, x, ggml_get_rows(ctx, bert->position, at));
    x = lb_norm_apply(ctx, &bert->norm, x, hp->layer_norm_eps);
    for (int i = 0; i < hp->num_hidden_layers; i++)
        x = lb_gdino_mark(g, bert_layer(g, &bert->layer[i], hp, x, sees), "bert_%d", i);
    x = lb_linear_apply(g, &bert->projection, x);
    ggml_set_name(x, "text");
    ggml_set_output(x);
    ggml_build_forward_expand(g->graph, x);
    return x;
}
