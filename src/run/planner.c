#include "run/planner.h"

#include "base/error.h"
#include "base/log.h"
#include "nn/backend.h"
#include "nn/nvml.h"
#include "detector/find.h"
#include "vlm/encoder.h"
#include "vlm/language.h"

#include <ggml-backend.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What the driver and the libraries take beside what is asked of them, where it cannot be measured. Of an H100 and an
 * H200 with CUDA 13.0 and ggml 0.25.3 (docs/memory.md tells how these were found). Of other kinds of GPU nothing is
 * known and nothing counted. */
enum {
    CONTEXT_MIB = 523,      /* CUDA context */
    KERNELS_MIB = 96,       /* code that is loaded when it is first used, and what else comes once */
    WORKSPACE_MIB = 85,     /* cuBLAS handle, its workspace and streams, for each backend that multiplies by cuBLAS */
    PROBE_MIB = 12,         /* what the small product that measures it takes more than a model's do */
    DETECTOR_POOL_MIB = 28, /* of the detector, at least */
    CHURN_MIB = 32,         /* what the driver keeps where buffers come and go */
    STEP_MOST = 2048,       /* prompt tokens up to which the pool is as it is reckoned; beyond, on the second of two */
    STEP_MORE_BYTES = 9216, /* cards, it was seen to be so much larger for each; why is not known (docs/memory.md) */
    MARGIN_PERCENT = 2,     /* of the card, left free when no --vram is given */
    MARGIN_MIB = 256
};
#define MIB ((size_t)1 << 20)

enum { N_KNOWN = 8 };

/* So many tiles or frames at once on a device; n 0: nothing yet. */
typedef struct known {
    int n, device;
} known;

struct lb_planner {
    const lb_engine_params *params;
    lb_plan_load load;
    lb_device device[LB_DEVICES_MAX];
    int n_devices;
    lb_encoder_hparams vision;
    lb_language_probe *language;
    size_t context_bytes, workspace_bytes; /* of a CUDA device */
    bool measured;
    /* What a search asks for again and again. */
    known vision_known[N_KNOWN], detector_known[N_KNOWN];
    lb_encoder_sizes vision_sizes[N_KNOWN];
    lb_find_sizes detector_sizes[N_KNOWN];
};

static bool is_cuda(const lb_device *device) {
    return lb_nvml_index(device->name) >= 0;
}

/* The pools grow by the driver's 2 MiB. */
static size_t whole_pages(size_t bytes) {
    return (bytes + 2 * MIB - 1) / (2 * MIB) * (2 * MIB);
}

/* The pools of ggml-cuda hold what products convert: the activations of one step in 16 bits, before and after the
 * widest product. */
static size_t pool_bytes(const lb_planner *planner, const lb_device *device, int64_t rows, int64_t widest,
                         int64_t width) {
    if (!is_cuda(device))
        return 0;
    return planner->workspace_bytes + whole_pages((size_t)rows * (size_t)(widest + width) * 2);
}

/* Quantized weights are multiplied by ggml's own kernels, with the activations before the product in blocks of 32 of 8
 * bits and two scales, and without cuBLAS; but for attention without its own kernel. */
static size_t language_pool_bytes(const lb_planner *planner, const lb_device *device, const lb_plan_choice *c) {
    const lb_language_shape *shape = lb_language_probe_shape(planner->language);
    if (!is_cuda(device))
        return 0;
    if (planner->params->vlm.exact || (c->weight_bits == 0 && !shape->is_quantized)) {
        const size_t more = c->n_ubatch > STEP_MOST ? (size_t)(c->n_ubatch - STEP_MOST) * STEP_MORE_BYTES : 0;
        return pool_bytes(planner, device, c->n_ubatch, shape->n_ff, shape->n_embd) + whole_pages(more);
    }
    return whole_pages((size_t)c->n_ubatch * (size_t)shape->n_ff / 32 * 36);
}

/* What a backend that multiplies takes beside the operands: its library's handle and workspace. The first product of a
 * process also brings code onto the card, so that is told by a second backend's beside it. 0: not known. */
static size_t measure_product(const lb_device *device, int index, ggml_backend_t *backend) {
    enum { N = 256 };
    size_t taken = 0;
    lb_nvml_memory before, after;
    if (!lb_nvml_read(index, &before) || lb_backend_open(device, 0, backend, NULL) != LB_STATUS_OK)
        return 0;
    struct ggml_context *ctx = ggml_init(
        (struct ggml_init_params){.mem_size = 8 * ggml_tensor_overhead() + ggml_graph_overhead(), .no_alloc = true});
    if (!ctx)
        return 0;
    struct ggml_tensor *a = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, N, N), *b = ggml_dup_tensor(ctx, a);
    struct ggml_tensor *c = ggml_mul_mat(ctx, a, b);
    struct ggml_cgraph *graph = ggml_new_graph(ctx);
    ggml_build_forward_expand(graph, c);
    ggml_backend_buffer_t buffer = ggml_backend_alloc_ctx_tensors(ctx, *backend);
    if (buffer && ggml_backend_graph_compute(*backend, graph) == GGML_STATUS_SUCCESS && lb_nvml_read(index, &after) &&
        after.used > before.used + ggml_backend_buffer_get_size(buffer))
        taken = after.used - before.used - ggml_backend_buffer_get_size(buffer);
    ggml_backend_buffer_free(buffer);
    ggml_free(ctx);
    return taken;
}

static void measure_context(lb_planner *planner) {
    const lb_device *device = &planner->device[0];
    planner->context_bytes = (CONTEXT_MIB + KERNELS_MIB) * MIB;
    planner->workspace_bytes = WORKSPACE_MIB * MIB;
    lb_nvml_memory with_context;
    const int index = lb_nvml_index(device->name);
    if (!is_cuda(device) || !lb_nvml_read(index, &with_context))
        return;
    size_t free_bytes, total_bytes;
    ggml_backend_dev_memory(device->handle, &free_bytes, &total_bytes); /* makes the context */
    if (!lb_nvml_read(index, &with_context))
        return;
    /* the library may have made the context already when it was asked for its devices */
    const size_t taken =
        device->first_free_bytes > with_context.free ? device->first_free_bytes - with_context.free : 0;
    if (taken > 64 * MIB && taken < 2048 * MIB) {
        planner->context_bytes = taken + KERNELS_MIB * MIB;
        planner->measured = true;
    }
    ggml_backend_t backend[2] = {NULL, NULL};
    const size_t first = measure_product(device, index, &backend[0]),
                 second = measure_product(device, index, &backend[1]);
    if (planner->measured && second > planner->workspace_bytes + PROBE_MIB * MIB && second < 512 * MIB)
        planner->workspace_bytes = second - PROBE_MIB * MIB;
    for (int i = 0; i < 2; i++)
        if (backend[i])
            ggml_backend_free(backend[i]);
    lb_log(LB_LOG_INFO, "memory", "context_bytes=%zu workspace_bytes=%zu measured=%d first_product=%zu second=%zu",
           planner->context_bytes, planner->workspace_bytes, planner->measured, first, second);
}

/* Of this process on a device that is found in this place. */
static size_t budget_of(const lb_engine_params *params, const lb_device *device, int i) {
    if (params->n_vram == 1)
        return params->vram[0]; /* one budget for each */
    if (i < params->n_vram)
        return params->vram[i];
    size_t margin = device->total_bytes / 100 * MARGIN_PERCENT;
    if (margin < MARGIN_MIB * MIB)
        margin = MARGIN_MIB * MIB;
    return device->first_free_bytes > margin ? device->first_free_bytes - margin : 0;
}

/* What there is to be had: --vram may name more. */
static size_t worth_of(const lb_engine_params *params, const lb_device *device, int i) {
    const size_t budget = budget_of(params, device, i);
    return budget < device->first_free_bytes ? budget : device->first_free_bytes;
}

static lb_status find_devices(const lb_engine_params *params, bool early, lb_device *device, int *n, lb_error *error) {
    lb_status status = early && lb_devices_look(params->vlm.device, device, n)
                           ? LB_STATUS_OK
                           : lb_devices_find(params->vlm.device, device, n, error);
    if (status == LB_STATUS_OK && params->n_vram > *n)
        status = lb_error_set(error, LB_STATUS_INVALID_ARGUMENT, "--vram names %d budgets, there are %d devices",
                              params->n_vram, *n);
    return status;
}

lb_status lb_planner_order_devices(const lb_engine_params *params, bool early, lb_device_order *order,
                                   lb_error *error) {
    *order = (lb_device_order){0};
    lb_device device[LB_DEVICES_MAX];
    int n;
    lb_status status = find_devices(params, early, device, &n, error);
    if (status != LB_STATUS_OK || n < 2)
        return status;
    size_t worth[LB_DEVICES_MAX], used = 0;
    bool taken[LB_DEVICES_MAX] = {false};
    for (int i = 0; i < n; i++)
        worth[i] = worth_of(params, &device[i], i);
    for (int place = 0; place < n; place++) {
        size_t most = 0;
        for (int i = 0; i < n; i++)
            most = !taken[i] && worth[i] > most ? worth[i] : most;
        int next = 0;
        while (taken[next] || worth[next] + worth[next] / 10 < most)
            next++;
        taken[next] = true;
        used += (size_t)snprintf(order->names + used, sizeof order->names - used, "%s%s", place ? "," : "",
                                 device[next].name);
        order->vram[place] = budget_of(params, &device[next], next);
    }
    order->n_vram = params->n_vram > 1 ? n : 0; /* fewer than there are devices: the others have what is free */
    return LB_STATUS_OK;
}

lb_status lb_planner_open(const lb_engine_params *params, const lb_plan_load *load, lb_planner **out, lb_error *error) {
    *out = NULL;
    lb_planner *planner = calloc(1, sizeof *planner);
    if (!planner)
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory for the plan");
    planner->params = params;
    planner->load = *load;
    lb_status status = find_devices(params, false, planner->device, &planner->n_devices, error);
    if (status == LB_STATUS_OK)
        status = lb_encoder_read_hparams(params->vlm.mmproj_path, &planner->vision, error);
    if (status == LB_STATUS_OK)
        status = lb_language_probe_open(&params->vlm, planner->device, planner->n_devices, &planner->language, error);
    if (status == LB_STATUS_OK)
        measure_context(planner);
    if (status != LB_STATUS_OK)
        lb_planner_free(planner);
    else
        *out = planner;
    return status;
}

void lb_planner_free(lb_planner *planner) {
    if (!planner)
        return;
    lb_language_probe_free(planner->language);
    free(planner);
}

/* The choice as the VLM takes it. */
static void to_vlm(const lb_plan_choice *c, lb_vlm_params *vlm) {
    vlm->tile_batch = c->tile_batch;
    vlm->n_ubatch = c->n_ubatch;
    vlm->n_parallel = c->n_parallel;
    vlm->layout = (lb_vlm_layout){.n_cells = c->n_cells,
                                  .kv_q8 = c->kv_q8,
                                  .rest_vision_compute = c->rest_compute,
                                  .rest_vision_weights = c->rest_weights,
                                  .rest_context = c->rest_context,
                                  .n_host_layers = c->n_host_layers,
                                  .vision_device = c->vision_device,
                                  .n_devices = c->n_devices};
    memcpy(vlm->layout.n_layers_on, c->n_layers_on, sizeof vlm->layout.n_layers_on);
}

/* Where these are known; false: they are not, and that is where they belong. */
static bool is_known(const known *list, int n, int device, int *place) {
    int i = 0;
    while (i < N_KNOWN - 1 && list[i].n > 0 && (list[i].n != n || list[i].device != device))
        i++;
    *place = i;
    return list[i].n == n && list[i].device == device;
}

static lb_status measure_detector(lb_planner *planner, int n, int device, lb_find_sizes *sizes, lb_error *error) {
    int place;
    if (!is_known(planner->detector_known, n, device, &place)) {
        lb_find_params find = lb_find_default_params();
        find.labels_path = planner->params->labels_path;
        find.detector.device = planner->device[device];
        lb_status status = lb_find_measure(planner->params->detector_path, &find, planner->load.picture_width,
                                           planner->load.picture_height, n, sizes, error);
        if (status != LB_STATUS_OK)
            return status;
        planner->detector_known[place] = (known){n, device};
        planner->detector_sizes[place] = *sizes;
    }
    *sizes = planner->detector_sizes[place];
    return LB_STATUS_OK;
}

static lb_status measure_vision(lb_planner *planner, int n, int device, lb_encoder_sizes *sizes, lb_error *error) {
    int place;
    if (!is_known(planner->vision_known, n, device, &place)) {
        const lb_encoder_params encoder = {.device = planner->device[device], .exact = planner->params->vlm.exact};
        lb_status status = lb_encoder_measure(planner->params->vlm.mmproj_path, &encoder, n, sizes, error);
        if (status != LB_STATUS_OK)
            return status;
        planner->vision_known[place] = (known){n, device};
        planner->vision_sizes[place] = *sizes;
    }
    *sizes = planner->vision_sizes[place];
    return LB_STATUS_OK;
}

static lb_status detector_sizes(lb_planner *planner, const lb_plan_choice *c, lb_plan_sizes *s, lb_error *error) {
    const int n = c->frame_batch < planner->load.n_frames ? c->frame_batch : planner->load.n_frames;
    const lb_device *device = &planner->device[c->vision_device];
    lb_find_sizes sizes;
    lb_status status = measure_detector(planner, n, c->vision_device, &sizes, error);
    if (status != LB_STATUS_OK)
        return status;
    s->detector_weights = sizes.weight_bytes;
    s->detector_text = sizes.text_bytes;
    s->text_encoder = sizes.text_encoder_bytes;
    s->text_encoder_compute = sizes.text_encoder_compute_bytes;
    s->detector_compute = sizes.compute_bytes;
    s->detector_pool = pool_bytes(planner, device, (int64_t)n * sizes.n_rows, sizes.n_widest, sizes.n_width);
    /* a single frame was seen to take nearly what eight do (docs/memory.md); why is not known */
    const size_t least = planner->workspace_bytes + DETECTOR_POOL_MIB * MIB;
    if (s->detector_pool > 0 && s->detector_pool < least)
        s->detector_pool = least;
    return LB_STATUS_OK;
}

static lb_status sizes_of(void *user, const lb_plan_choice *c, lb_plan_sizes *s, lb_error *error) {
    lb_planner *planner = user;
    const lb_engine_params *params = planner->params;
    lb_vlm_params vlm = params->vlm;
    to_vlm(c, &vlm);
    vlm.layout.weight_bits = c->weight_bits; /* a file of fewer bits that is there is what would be made now */
    lb_language_sizes language;
    lb_status status = lb_language_probe_sizes(planner->language, &vlm, &language, error);
    if (status != LB_STATUS_OK)
        return status;
    for (int d = 0; d < c->n_devices; d++) {
        s->language_weights[d] = language.weights[d];
        s->kv[d] = language.kv[d];
        s->language_compute[d] = language.compute[d];
        s->language_pool[d] = language_pool_bytes(planner, &planner->device[d], c);
        s->churn[d] = is_cuda(&planner->device[d]) && (c->rest_context || c->rest_weights || c->n_host_layers > 0)
                          ? CHURN_MIB * MIB
                          : 0;
    }
    s->host_layer_weights = language.host_weights;

    const lb_device *device = &planner->device[c->vision_device];
    lb_encoder_sizes vision;
    status = measure_vision(planner, c->tile_batch, c->vision_device, &vision, error);
    if (status != LB_STATUS_OK)
        return status;
    s->vision_weights = vision.weight_bytes;
    s->vision_compute = vision.compute_bytes;
    const int side = planner->vision.image_size / planner->vision.patch_size;
    s->vision_pool = pool_bytes(planner, device, (int64_t)c->tile_batch * (side * side + 1), planner->vision.n_ff,
                                planner->vision.n_embd);
    return params->detector_path ? detector_sizes(planner, c, s, error) : LB_STATUS_OK;
}

static void fill_request(const lb_planner *planner, lb_plan_request *r) {
    const lb_engine_params *params = planner->params;
    const bool detector = params->detector_path != NULL;
    *r = (lb_plan_request){
        .detector = detector,
        .crops_per_frame = detector ? params->max_detections : 0,
        .frame_batch = params->detector_batch > 0  ? params->detector_batch
                       : planner->device[0].is_cpu ? 1
                                                   : 8,
        .n_devices = planner->n_devices,
        .more_devices = params->more_devices,
        .allow = params->allow,
        .n_frames = planner->load.n_frames,
        .tiles_per_frame = planner->load.tiles_per_frame,
        .tokens_per_tile = planner->vision.n_tokens,
        .text_tokens = planner->load.text_tokens,
        .question_tokens = planner->load.question_tokens,
        .new_tokens = params->letter_only ? 0 : params->max_new_tokens,
        .n_layer = lb_language_probe_shape(planner->language)->n_layer,
        .tile_batch = params->vlm.tile_batch > 0  ? params->vlm.tile_batch
                      : planner->device[0].is_cpu ? 1
                                                  : 4,
        .n_ubatch = params->vlm.n_ubatch > 0 ? params->vlm.n_ubatch : lb_vlm_default_params().n_ubatch,
        .fixed_ubatch = params->vlm.n_ubatch > 0 && params->vlm.n_ubatch != lb_vlm_default_params().n_ubatch,
        .n_parallel = params->vlm.n_parallel > 0 ? params->vlm.n_parallel : lb_vlm_default_params().n_parallel,
        .reuse = params->reuse,
        .weight_bits = params->weight_bits,
        .kv_q8 = params->kv_bits == 8,
    };
    for (int i = 0; i < planner->n_devices; i++) {
        const lb_device *device = &planner->device[i];
        lb_plan_device *d = &r->device[i];
        memcpy(d->name, device->name, sizeof d->name);
        memcpy(d->description, device->description, sizeof d->description);
        d->is_cpu = device->is_cpu;
        d->total_bytes = device->total_bytes;
        d->free_bytes = device->first_free_bytes;
        d->context_bytes = is_cuda(device) ? planner->context_bytes : 0;
        d->context_measured = is_cuda(device) && planner->measured;
        d->budget_bytes = budget_of(params, device, i);
    }
}

/* Budgets of no more than what is free: somebody else took memory, or --vram is more than there is. True when the plan
 * is too large for that. */
static bool cut_to_free(const lb_planner *planner, lb_plan_request *request, const lb_plan *plan) {
    bool too_large = false;
    for (int i = 0; i < request->n_devices; i++) {
        const size_t left = planner->device[i].first_free_bytes;
        if (planner->device[i].is_cpu || request->device[i].budget_bytes <= left)
            continue;
        request->device[i].budget_bytes = left;
        too_large |= i < plan->choice.n_devices && plan->peak_bytes[i] > left;
    }
    return too_large;
}

/* The plan before met its end: one whose peak is an eighth lower or, where that does not fit, as low as can be. */
static lb_status make_smaller(lb_plan_request *request, const lb_plan_sizer *sizer, lb_plan *plan, lb_error *error) {
    size_t before = 0;
    for (int i = 0; i < request->n_devices; i++) {
        lb_plan_device *d = &request->device[i];
        const size_t peak = i < plan->choice.n_devices ? plan->peak_bytes[i] : 0;
        before = peak > before ? peak : before;
        d->budget_bytes = (peak > 0 && peak < d->budget_bytes ? peak : d->budget_bytes) / 8 * 7;
    }
    lb_status status = lb_plan_make(request, sizer, plan, error);
    const size_t smallest = plan->smallest_bytes;
    if (status != LB_STATUS_DOES_NOT_FIT || smallest >= before)
        return status;
    for (int i = 0; i < request->n_devices; i++)
        if (request->device[i].budget_bytes < smallest)
            request->device[i].budget_bytes = smallest;
    return lb_plan_make(request, sizer, plan, error);
}

lb_status lb_planner_make(lb_planner *planner, lb_plan *plan, lb_error *error) {
    lb_plan_request request;
    fill_request(planner, &request);
    const lb_plan_sizer sizer = {planner, sizes_of};
    lb_status status = lb_plan_make(&request, &sizer, plan, error);
    int n_smaller = planner->params->n_retries;
    if (n_smaller > 0 && status == LB_STATUS_OK && cut_to_free(planner, &request, plan)) {
        status = lb_plan_make(&request, &sizer, plan, error);
        n_smaller--;
    }
    for (int k = 0; k < n_smaller && status == LB_STATUS_OK; k++)
        status = make_smaller(&request, &sizer, plan, error);
    if (status != LB_STATUS_OK && status != LB_STATUS_DOES_NOT_FIT)
        return status;
    /* host memory: the clip that is answered and those made ready meanwhile; one video's embeddings */
    const size_t tile = (size_t)planner->vision.image_size * (size_t)planner->vision.image_size * 3;
    plan->clip_bytes =
        (size_t)planner->load.n_frames * (planner->load.frame_bytes + tile * (size_t)plan->choice.tiles_per_frame);
    plan->host_bytes[LB_COMPONENT_FRAMES] = plan->clip_bytes * 4;
    plan->host_bytes[LB_COMPONENT_EMBEDDINGS] =
        (size_t)plan->n_tiles * (size_t)planner->vision.n_tokens * (size_t)planner->vision.n_out * sizeof(float);
    return status;
}

void lb_planner_apply(const lb_plan *plan, lb_engine_params *params) {
    const lb_plan_choice *c = &plan->choice;
    to_vlm(c, &params->vlm);
    if (plan->request.detector) {
        params->detector_batch = c->frame_batch;
        params->max_detections = c->crops_per_frame;
    }
}
