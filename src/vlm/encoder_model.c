#include "base/error.h"
#include "vlm/encoder_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static lb_status check_kind(const lb_gguf *file, lb_error *error) {
    const char *path = lb_gguf_path(file), *arch = NULL, *projector = NULL;
    lb_status status = lb_gguf_string(file, "general.architecture", &arch, error);
    if (status != LB_STATUS_OK)
        return status;
    if (strcmp(arch, "clip") != 0)
        return lb_error_set(error, LB_STATUS_UNSUPPORTED,
                            "%s: architecture '%s' where the vision part ('clip', an mmproj file) belongs; are --model "
                            "and --mmproj exchanged?",
                            path, arch);
    if (lb_gguf_string(file, "clip.projector_type", &projector, NULL) != LB_STATUS_OK)
        status = lb_gguf_string(file, "clip.vision.projector_type", &projector, error);
    if (status != LB_STATUS_OK)
        return status;
    if (strcmp(projector, "internvl") != 0)
        return lb_error_set(error, LB_STATUS_UNSUPPORTED,
                            "%s: projector '%s'; lowbeam runs 'internvl' (InternVL3, 3.5)", path, projector);
    return LB_STATUS_OK;
}

static lb_status read_dim(const lb_gguf *file, const char *key, int most, int *value, lb_error *error) {
    int64_t v;
    lb_status status = lb_gguf_int(file, key, &v, error);
    if (status == LB_STATUS_OK && (v < 1 || v > most))
        status = lb_error_set(error, LB_STATUS_FORMAT, "%s: '%s' is %lld, expected 1 to %d", lb_gguf_path(file), key,
                              (long long)v, most);
    *value = status == LB_STATUS_OK ? (int)v : 0;
    return status;
}

lb_status lb_encoder_hparams_read(const lb_gguf *file, lb_encoder_hparams *hp, lb_error *error) {
    *hp = (lb_encoder_hparams){0};
    lb_status status = check_kind(file, error);
    const struct {
        const char *key;
        int most;
        int *value;
    } dims[] = {
        {"clip.vision.image_size", 4096, &hp->image_size},
        {"clip.vision.patch_size", 256, &hp->patch_size},
        {"clip.vision.embedding_length", 1 << 14, &hp->n_embd},
        {"clip.vision.feed_forward_length", 1 << 17, &hp->n_ff},
        {"clip.vision.block_count", LB_ENCODER_LAYERS_MAX, &hp->n_layer},
        {"clip.vision.attention.head_count", 1 << 10, &hp->n_head},
        {"clip.vision.projector.scale_factor", 16, &hp->scale_factor},
    };
    for (size_t i = 0; i < sizeof dims / sizeof *dims && status == LB_STATUS_OK; i++)
        status = read_dim(file, dims[i].key, dims[i].most, dims[i].value, error);
    if (status == LB_STATUS_OK)
        status = lb_gguf_float(file, "clip.vision.attention.layer_norm_epsilon", &hp->eps, error);
    if (status == LB_STATUS_OK)
        status = lb_gguf_floats(file, "clip.vision.image_mean", 3, hp->mean, error);
    if (status == LB_STATUS_OK)
        status = lb_gguf_floats(file, "clip.vision.image_std", 3, hp->std, error);
    if (status != LB_STATUS_OK)
        return status;

    const char *path = lb_gguf_path(file);
    lb_gguf_tensor tensor;
    if (lb_gguf_find(file, "v.blk.0.attn_q_norm.weight", &tensor))
        return lb_error_set(
            error, LB_STATUS_UNSUPPORTED,
            "%s: this is InternViT-6B (%d wide, %d layers, normalised queries), the encoder of the 26B, "
            "38B and 78B models; lowbeam runs InternViT-300M, that of the 1B to 14B ones",
            path, hp->n_embd, hp->n_layer);
    if (!lb_gguf_bool_or(file, "clip.use_gelu", false))
        return lb_error_set(error, LB_STATUS_UNSUPPORTED, "%s: its activation is not GELU, which InternViT-300M has",
                            path);
    if (hp->image_size % (hp->patch_size * hp->scale_factor) != 0 || hp->n_embd < 2 || hp->n_embd % hp->n_head != 0)
        return lb_error_set(error, LB_STATUS_FORMAT,
                            "%s: sizes that do not go together: image %d, patch %d, scale %d, width %d, heads %d", path,
                            hp->image_size, hp->patch_size, hp->scale_factor, hp->n_embd, hp->n_head);
    /* written so that NaN is refused, too */
    if (!(hp->eps > 0 && hp->eps < 1 && hp->std[0] > 0 && hp->std[1] > 0 && hp->std[2] > 0))
        return lb_error_set(error, LB_STATUS_FORMAT,
                            "%s: 'layer_norm_epsilon' is %g, 'image_std' %g, %g, %g: not numbers above 0", path,
                            (double)hp->eps, (double)hp->std[0], (double)hp->std[1], (double)hp->std[2]);
    if (!lb_gguf_find(file, "mm.model.mlp.3.weight", &tensor))
        return lb_error_set(error, LB_STATUS_FORMAT, "%s: tensor mm.model.mlp.3.weight is missing", path);
    hp->n_out = (int)tensor.ne[1];
    int side = hp->image_size / hp->patch_size / hp->scale_factor;
    hp->n_tokens = side * side;
    return LB_STATUS_OK;
}

/* The convolution's kernel as a matrix over pixels in the order in which they lie in the tile: torch's
 * [n_embd, 3, patch, patch] becomes [n_embd][y][x][channel]. In f32 whatever the file has: it is small, and the pixels'
 * products with it are the only ones at full precision in every engine. */
static lb_status add_patch_weights(const lb_gguf *file, lb_encoder_model *model, lb_error *error) {
    const int64_t p = model->hparams.patch_size, n_embd = model->hparams.n_embd, n = 3 * p * p;
    lb_gguf_tensor kernel;
    const char *name = "v.patch_embd.weight";
    if (!lb_gguf_find(file, name, &kernel))
        return lb_error_set(error, LB_STATUS_FORMAT, "%s: tensor %s is missing", lb_gguf_path(file), name);
    if (kernel.ne[0] != p || kernel.ne[1] != p || kernel.ne[2] != 3 || kernel.ne[3] != n_embd)
        return lb_error_set(error, LB_STATUS_FORMAT, "%s: tensor %s is not [%lld, 3, %lld, %lld]", lb_gguf_path(file),
                            name, (long long)n_embd, (long long)p, (long long)p);
    /* read as rows of one output channel each; blocks of a quantized type would not end with a row */
    lb_gguf_tensor rows = kernel;
    rows.ne[0] = n, rows.ne[1] = n_embd, rows.ne[2] = rows.ne[3] = 1;
    if (n % ggml_blck_size((enum ggml_type)kernel.type) != 0)
        return lb_error_set(error, LB_STATUS_UNSUPPORTED, "%s: tensor %s is quantized; keep it in f32 or f16",
                            lb_gguf_path(file), name);
    float *row = malloc((size_t)n * sizeof *row), *out = malloc((size_t)(n * n_embd) * sizeof *out);
    lb_status status =
        row && out ? LB_STATUS_OK : lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory for %s", name);
    for (int64_t o = 0; o < n_embd && status == LB_STATUS_OK; o++) {
        status = lb_gguf_row(&rows, o, row, error);
        for (int64_t c = 0; c < 3; c++)
            for (int64_t yx = 0; yx < p * p; yx++)
                out[o * n + yx * 3 + c] = row[c * p * p + yx];
    }
    model->patch_w = lb_weights_add_values(model->weights, name, (int64_t[4]){n, n_embd, 1, 1}, out, &status, error);
    free(row);
    free(out);
    return status;
}

/* (pixel / 255 - mean) / std for pixel = q + 128, as scale and shift; repeated over a patch's row. */
static void add_normalisation(lb_encoder_model *model, lb_status *status, lb_error *error) {
    enum { PATCH_MAX = 256 };
    const lb_encoder_hparams *hp = &model->hparams;
    float scale[3 * PATCH_MAX], shift[3 * PATCH_MAX];
    int n = 3 * hp->patch_size;
    for (int i = 0; i < n; i++) {
        double std = hp->std[i % 3], mean = hp->mean[i % 3];
        scale[i] = (float)(1.0 / (255.0 * std));
        shift[i] = (float)((128.0 / 255.0 - mean) / std);
    }
    model->pixel_scale =
        lb_weights_add_values(model->weights, "pixel_scale", (int64_t[4]){n, 1, 1, 1}, scale, status, error);
    model->pixel_shift =
        lb_weights_add_values(model->weights, "pixel_shift", (int64_t[4]){n, 1, 1, 1}, shift, status, error);
}

typedef struct declaration {
    const lb_gguf *file;
    lb_encoder_model *model;
    lb_status status;
    lb_error *error;
} declaration;

static struct ggml_tensor *add(declaration *d, int64_t ne0, int64_t ne1, const char *format, int layer,
                               const char *suffix) {
    char name[96];
    snprintf(name, sizeof name, format, layer, suffix);
    return lb_weights_add(d->model->weights, d->file, name, (int64_t[4]){ne0, ne1, 1, 1}, &d->status, d->error);
}

/* What is added or multiplied value by value has to be f32: ggml aborts on some other types, late and not everywhere.
 */
static struct ggml_tensor *require_f32(declaration *d, struct ggml_tensor *tensor) {
    if (d->status == LB_STATUS_OK && tensor->type != GGML_TYPE_F32)
        d->status = lb_error_set(d->error, LB_STATUS_UNSUPPORTED,
                                 "%s: tensor %s is of type %s; llama.cpp's converter keeps it in f32, whatever the "
                                 "matrices are in",
                                 lb_gguf_path(d->file), ggml_get_name(tensor), ggml_type_name(tensor->type));
    return tensor;
}

static struct ggml_tensor *add_vector(declaration *d, int64_t ne0, const char *format, int layer, const char *suffix) {
    return require_f32(d, add(d, ne0, 1, format, layer, suffix));
}

static struct ggml_tensor *add_qkv(declaration *d, int64_t ne0, int64_t ne1, int layer, const char *suffix) {
    char name[3][96];
    const char *names[3];
    for (int i = 0; i < 3; i++) {
        snprintf(name[i], sizeof name[i], "v.blk.%d.attn_%c.%s", layer, "qkv"[i], suffix);
        names[i] = name[i];
    }
    return lb_weights_add_stacked(d->model->weights, d->file, names, 3, (int64_t[4]){ne0, ne1, 1, 1}, &d->status,
                                  d->error);
}

static void add_layer(declaration *d, int i) {
    const int64_t n_embd = d->model->hparams.n_embd, n_ff = d->model->hparams.n_ff;
    lb_encoder_layer *layer = &d->model->layer[i];
    layer->ln1_w = add_vector(d, n_embd, "v.blk.%d.ln1.%s", i, "weight");
    layer->ln1_b = add_vector(d, n_embd, "v.blk.%d.ln1.%s", i, "bias");
    layer->ln2_w = add_vector(d, n_embd, "v.blk.%d.ln2.%s", i, "weight");
    layer->ln2_b = add_vector(d, n_embd, "v.blk.%d.ln2.%s", i, "bias");
    layer->qkv_w = add_qkv(d, n_embd, n_embd, i, "weight");
    layer->qkv_b = require_f32(d, add_qkv(d, n_embd, 1, i, "bias"));
    layer->out_w = add(d, n_embd, n_embd, "v.blk.%d.attn_out.%s", i, "weight");
    layer->out_b = add_vector(d, n_embd, "v.blk.%d.attn_out.%s", i, "bias");
    layer->ls1 = add_vector(d, n_embd, "v.blk.%d.ls1.%s", i, "weight");
    layer->ls2 = add_vector(d, n_embd, "v.blk.%d.ls2.%s", i, "weight");
    layer->up_w = add(d, n_embd, n_ff, "v.blk.%d.ffn_up.%s", i, "weight");
    layer->up_b = add_vector(d, n_ff, "v.blk.%d.ffn_up.%s", i, "bias");
    layer->down_w = add(d, n_ff, n_embd, "v.blk.%d.ffn_down.%s", i, "weight");
    layer->down_b = add_vector(d, n_embd, "v.blk.%d.ffn_down.%s", i, "bias");
}

lb_status lb_encoder_model_declare(const lb_gguf *file, lb_encoder_model *model, lb_error *error) {
    lb_status status = lb_encoder_hparams_read(file, &model->hparams, error);
    const lb_encoder_hparams *hp = &model->hparams;
    if (status == LB_STATUS_OK)
        status = lb_weights_begin(&model->weights, 16 + 14 * (size_t)hp->n_layer, error);
    if (status == LB_STATUS_OK)
        status = add_patch_weights(file, model, error);
    if (status != LB_STATUS_OK)
        return status;

    declaration d = {file, model, LB_STATUS_OK, error};
    const int64_t n_patches = (int64_t)(hp->image_size / hp->patch_size) * (hp->image_size / hp->patch_size);
    const int64_t n_merged = (int64_t)hp->n_embd * hp->scale_factor * hp->scale_factor;
    add_normalisation(model, &d.status, error);
    model->patch_b = add_vector(&d, hp->n_embd, "v.patch_embd.bias", 0, "");
    model->class_embd = add_vector(&d, hp->n_embd, "v.class_embd", 0, "");
    model->position_embd = require_f32(&d, add(&d, hp->n_embd, 1 + n_patches, "v.position_embd.weight", 0, ""));
    for (int i = 0; i < hp->n_layer; i++)
        add_layer(&d, i);
    model->mm_norm_w = add_vector(&d, n_merged, "mm.model.mlp.%d.%s", 0, "weight");
    model->mm_norm_b = add_vector(&d, n_merged, "mm.model.mlp.%d.%s", 0, "bias");
    model->mm_1_w = add(&d, n_merged, hp->n_out, "mm.model.mlp.%d.%s", 1, "weight");
    model->mm_1_b = add_vector(&d, hp->n_out, "mm.model.mlp.%d.%s", 1, "bias");
    model->mm_3_w = add(&d, hp->n_out, hp->n_out, "mm.model.mlp.%d.%s", 3, "weight");
    model->mm_3_b = add_vector(&d, hp->n_out, "mm.model.mlp.%d.%s", 3, "bias");
    return d.status;
}
