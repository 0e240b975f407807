#include "nn/weights.h"

#include "base/error.h"
#include "nn/pinned.h"

#include <stdlib.h>
#include <string.h>

/* Where a declared tensor's bytes come from: parts in the mapped file, one after the other, or values of our own. */
typedef struct source {
    struct ggml_tensor *tensor;
    const void *part[3];
    size_t part_bytes[3];
    int n_parts;
    float *values;
} source;

struct lb_weights {
    struct ggml_context *ctx;
    ggml_backend_buffer_t buffer;
    lb_component component;
    source *source;
    size_t n, n_max, bytes;
    bool widen;     /* 16 bits to f32 */
    int place;      /* of its device */
    lb_pinned host; /* all tensors one after the other: where they are between two stays on the device */
};

lb_status lb_weights_begin(lb_weights **out, size_t n_max, lb_error *error) {
    *out = NULL;
    lb_weights *weights = calloc(1, sizeof *weights);
    if (weights) {
        weights->n_max = n_max;
        weights->source = calloc(n_max, sizeof *weights->source);
        weights->ctx =
            ggml_init((struct ggml_init_params){.mem_size = n_max * ggml_tensor_overhead(), .no_alloc = true});
    }
    if (!weights || !weights->source || !weights->ctx) {
        lb_weights_free(weights);
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory for the list of %zu tensors", n_max);
    }
    *out = weights;
    return LB_STATUS_OK;
}

static void forget_buffer(lb_weights *weights) {
    if (!weights->buffer)
        return;
    lb_ledger_sub_on(weights->place, weights->component, weights->bytes);
    ggml_backend_buffer_free(weights->buffer);
    weights->buffer = NULL;
}

void lb_weights_free(lb_weights *weights) {
    if (!weights)
        return;
    forget_buffer(weights);
    lb_pinned_free(&weights->host);
    ggml_free(weights->ctx);
    for (size_t i = 0; weights->source && i < weights->n; i++)
        free(weights->source[i].values);
    free(weights->source);
    free(weights);
}

void lb_weights_widen(lb_weights *weights) {
    weights->widen = true;
}

static source *declare(lb_weights *weights, const char *name, int type, const int64_t ne[4], lb_status *status,
                       lb_error *error) {
    if (weights->n == weights->n_max) {
        *status = lb_error_set(error, LB_STATUS_INTERNAL, "tensor %s: more than the %zu tensors announced", name,
                               weights->n_max);
        return NULL;
    }
    source *entry = &weights->source[weights->n++];
    entry->tensor = ggml_new_tensor_4d(weights->ctx, (enum ggml_type)type, ne[0], ne[1], ne[2], ne[3]);
    ggml_set_name(entry->tensor, name);
    return entry;
}

/* The types that every backend multiplies with f32; ggml aborts on some of the others (integers, f64). */
static bool is_usable(enum ggml_type type) {
    return type == GGML_TYPE_F32 || type == GGML_TYPE_F16 || type == GGML_TYPE_BF16 || type == GGML_TYPE_Q8_0;
}

static struct ggml_tensor *add_widened(lb_weights *weights, const char *name, const lb_gguf_tensor *part, int n_parts,
                                       const int64_t ne[4], lb_status *status, lb_error *error) {
    const int64_t n = ne[0] * ne[1] * ne[2] * ne[3], n_part = n / n_parts;
    float *values = malloc((size_t)n * sizeof *values);
    source *entry = NULL;
    if (!values)
        *status = lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "tensor %s: no memory for it in f32", name);
    else
        entry = declare(weights, name, GGML_TYPE_F32, ne, status, error);
    if (!entry) {
        free(values);
        return NULL;
    }
    for (int i = 0; i < n_parts; i++) {
        if (part[i].type == GGML_TYPE_F16)
            ggml_fp16_to_fp32_row(part[i].data, values + i * n_part, n_part);
        else
            ggml_bf16_to_fp32_row(part[i].data, values + i * n_part, n_part);
    }
    entry->values = values;
    return entry->tensor;
}

struct ggml_tensor *lb_weights_add(lb_weights *weights, const lb_gguf *file, const char *name, const int64_t ne[4],
                                   lb_status *status, lb_error *error) {
    return lb_weights_add_stacked(weights, file, &name, 1, ne, status, error);
}

struct ggml_tensor *lb_weights_add_stacked(lb_weights *weights, const lb_gguf *file, const char *const *names,
                                           int n_names, const int64_t ne[4], lb_status *status, lb_error *error) {
    if (*status != LB_STATUS_OK)
        return NULL;
    lb_gguf_tensor part[3] = {0};
    for (int i = 0; i < n_names; i++) {
        if (!lb_gguf_find(file, names[i], &part[i])) {
            *status = lb_error_set(error, LB_STATUS_FORMAT, "%s: tensor %s is missing", lb_gguf_path(file), names[i]);
            return NULL;
        }
        const int64_t *has = part[i].ne;
        if (memcmp(has, ne, sizeof part[i].ne) != 0) {
            *status =
                lb_error_set(error, LB_STATUS_FORMAT,
                             "%s: tensor %s is [%lld, %lld, %lld, %lld], expected [%lld, %lld, %lld, %lld] by the "
                             "header's sizes",
                             lb_gguf_path(file), names[i], (long long)has[0], (long long)has[1], (long long)has[2],
                             (long long)has[3], (long long)ne[0], (long long)ne[1], (long long)ne[2], (long long)ne[3]);
            return NULL;
        }
        if (!is_usable((enum ggml_type)part[i].type)) {
            *status =
                lb_error_set(error, LB_STATUS_UNSUPPORTED,
                             "%s: tensor %s is of type %s; f32, f16, bf16 and q8_0 are possible: convert the file "
                             "again with one of them",
                             lb_gguf_path(file), names[i], ggml_type_name((enum ggml_type)part[i].type));
            return NULL;
        }
        if (part[i].type != part[0].type) {
            *status = lb_error_set(error, LB_STATUS_UNSUPPORTED,
                                   "%s: tensors %s and %s are of different types; convert the file again with one type",
                                   lb_gguf_path(file), names[0], names[i]);
            return NULL;
        }
    }
    int64_t stacked[4] = {ne[0], ne[1], ne[2], ne[3]};
    if (n_names > 1)
        stacked[ne[1] == 1 ? 0 : 1] *= n_names; /* a vector grows along itself, a matrix by rows */
    if (weights->widen && (part[0].type == GGML_TYPE_F16 || part[0].type == GGML_TYPE_BF16))
        return add_widened(weights, names[0], part, n_names, stacked, status, error);
    source *entry = declare(weights, names[0], part[0].type, stacked, status, error);
    if (!entry)
        return NULL;
    entry->n_parts = n_names;
    for (int i = 0; i < n_names; i++) {
        entry->part[i] = part[i].data;
        entry->part_bytes[i] = part[i].n_bytes;
    }
    return entry->tensor;
}

struct ggml_tensor *lb_weights_add_values(lb_weights *weights, const char *name, const int64_t ne[4],
                                          const float *values, lb_status *status, lb_error *error) {
    if (*status != LB_STATUS_OK)
        return NULL;
    size_t bytes = (size_t)(ne[0] * ne[1] * ne[2] * ne[3]) * sizeof *values;
    float *copy = malloc(bytes);
    if (!copy) {
        *status = lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "tensor %s: no memory for %zu bytes", name, bytes);
        return NULL;
    }
    memcpy(copy, values, bytes);
    source *entry = declare(weights, name, GGML_TYPE_F32, ne, status, error);
    if (!entry) {
        free(copy);
        return NULL;
    }
    entry->values = copy;
    return entry->tensor;
}

static size_t declared_bytes(const lb_weights *weights) {
    size_t bytes = 0;
    for (size_t i = 0; i < weights->n; i++)
        bytes += ggml_nbytes(weights->source[i].tensor);
    return bytes;
}

size_t lb_weights_measure(const lb_weights *weights, const lb_device *device) {
    return ggml_backend_alloc_ctx_tensors_from_buft_size(weights->ctx, ggml_backend_dev_buffer_type(device->handle));
}

void lb_weights_pretend(lb_weights *weights) {
    for (size_t i = 0; i < weights->n; i++)
        weights->source[i].tensor->data = weights->source[i].tensor; /* any address: what a graph allocator looks at */
}

/* A buffer on the backend's device for all tensors, entered into the ledger. */
static lb_status allocate(lb_weights *weights, ggml_backend_t backend, lb_error *error) {
    weights->buffer = ggml_backend_alloc_ctx_tensors(weights->ctx, backend);
    if (!weights->buffer)
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no room for %.2f GiB of %s on %s",
                            (double)declared_bytes(weights) / (1 << 30), lb_component_text(weights->component),
                            ggml_backend_name(backend));
    ggml_backend_buffer_set_usage(weights->buffer, GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
    weights->bytes = ggml_backend_buffer_get_size(weights->buffer);
    weights->place = lb_device_place(ggml_backend_get_device(backend));
    lb_ledger_add_on(weights->place, weights->component, weights->bytes);
    return LB_STATUS_OK;
}

/* The bytes of one tensor from the file or from our own values, to wherever put brings them. */
static void each_part(source *entry,
                      void (*put)(source *entry, const void *data, size_t offset, size_t bytes, void *to), void *to) {
    if (entry->values) {
        put(entry, entry->values, 0, ggml_nbytes(entry->tensor), to);
        free(entry->values);
        entry->values = NULL;
        return;
    }
    size_t offset = 0;
    for (int k = 0; k < entry->n_parts; k++) {
        put(entry, entry->part[k], offset, entry->part_bytes[k], to);
        offset += entry->part_bytes[k];
    }
}

static void put_on_device(source *entry, const void *data, size_t offset, size_t bytes, void *to) {
    (void)to;
    ggml_backend_tensor_set(entry->tensor, data, offset, bytes);
}

static void put_on_host(source *entry, const void *data, size_t offset, size_t bytes, void *to) {
    (void)entry;
    memcpy((uint8_t *)to + offset, data, bytes);
}

lb_status lb_weights_load(lb_weights *weights, ggml_backend_t backend, lb_component component, lb_error *error) {
    weights->component = component;
    lb_status status = allocate(weights, backend, error);
    for (size_t i = 0; i < weights->n && status == LB_STATUS_OK; i++)
        each_part(&weights->source[i], put_on_device, NULL);
    return status;
}

lb_status lb_weights_load_host(lb_weights *weights, const lb_device *device, lb_component component, lb_error *error) {
    weights->component = component;
    lb_status status =
        lb_pinned_alloc(device, declared_bytes(weights), LB_COMPONENT_HOST_WEIGHTS, &weights->host, error);
    uint8_t *to = weights->host.data;
    for (size_t i = 0; i < weights->n && status == LB_STATUS_OK; i++) {
        each_part(&weights->source[i], put_on_host, to);
        to += ggml_nbytes(weights->source[i].tensor);
    }
    return status;
}

lb_status lb_weights_bring(lb_weights *weights, ggml_backend_t backend, lb_error *error) {
    if (weights->buffer)
        return LB_STATUS_OK;
    lb_status status = allocate(weights, backend, error);
    const uint8_t *from = weights->host.data;
    for (size_t i = 0; i < weights->n && status == LB_STATUS_OK; i++) {
        const size_t bytes = ggml_nbytes(weights->source[i].tensor);
        ggml_backend_tensor_set_async(backend, weights->source[i].tensor, from, 0, bytes);
        from += bytes;
    }
    return status;
}

void lb_weights_leave(lb_weights *weights) {
    if (!weights->host.data || !weights->buffer)
        return;
    forget_buffer(weights);
    for (size_t i = 0; i < weights->n; i++) { /* or the next allocation would pass them over */
        weights->source[i].tensor->data = NULL;
        weights->source[i].tensor->buffer = NULL;
    }
}

size_t lb_weights_bytes(const lb_weights *weights) {
    return weights->bytes;
}
