/* Class scores and boxes of GroundingDinoForObjectDetection. */
#include "detector/model_internal.h"

/* GroundingDinoContrastiveEmbedding for a text without padding: ne = [T, n, B]. The reference fills up to max_text_len
 * with -inf; those columns are left out here. */
struct ggml_tensor *lb_gdino_class_logits(lb_gdino_graph *g, struct ggml_tensor *hidden, struct ggml_tensor *text) {
    return lb_gdino_product(g, text, hidden);
}

struct ggml_tensor *lb_gdino_refine(lb_gdino_graph *g, const lb_mlp_head *head, struct ggml_tensor *hidden,
                                    struct ggml_tensor *reference) {
    struct ggml_context *ctx = g->ctx;
    const float eps = 1e-5f; /* transformers'; the original repository has 1e-3 in its model, 1e-5 beside it */
    struct ggml_tensor *x = ggml_clamp(ctx, reference, eps, 1.0f - eps);
    struct ggml_tensor *logit = ggml_sub(ctx, ggml_log(ctx, x), ggml_log(ctx, ggml_scale_bias(ctx, x, -1.0f, 1.0f)));
    return ggml_sigmoid(ctx, ggml_add(ctx, lb_mlp_apply(g, head, hidden), logit));
}
