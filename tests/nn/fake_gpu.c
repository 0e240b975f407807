/* Pretended GPUs, computed by ggml's CPU backend: what spreads a model over devices, keeps to a budget and tries again
 * with a smaller plan can then be tested where there is no card. Linked into tests/lowbeam_fake, which is lowbeam with
 * this beside it; not part of what is installed.
 *
 *     LOWBEAM_FAKE_GPUS=24MiB,24MiB LOWBEAM_FAKE_GPU_LOG=log tests/lowbeam_fake answer ... --device fake0,fake1 --vram
 * 20MiB
 *
 * makes devices FAKE0 and FAKE1 of so much memory, each process for itself. The log gets a line "PID FAKE0 peak BYTES"
 * whenever more is held than ever before and "PID FAKE0 failed BYTES" for an allocation that did not fit: at once, and
 * not at exit, since a process that runs out of memory may abort. LOWBEAM_FAKE_GPU_BALLAST names a file with the number
 * of bytes that another process holds on each device; it may be written while lowbeam runs. LOWBEAM_FAKE_GPU_LOST names
 * a file with the names of devices that can hold models but not compute: the process aborts, as it does when a card
 * falls off the bus; "FAKE1:20": not before its twentieth graph. It, too, may be written while lowbeam runs.
 * LOWBEAM_FAKE_GPU_FULL_ONCE names a file with a device's name: one allocation on it fails, and the file is removed.
 * LOWBEAM_FAKE_GPU_MS: each graph takes so many milliseconds at least, and no processor meanwhile.
 * LOWBEAM_FAKE_GPU_TOGETHER="2:FILE": what comes after a device's second graph, which opening a model takes, waits
 * until two devices have come so far; the file counts them.
 * LOWBEAM_FAKE_GPU_CUDA: they are called CUDA0, CUDA1, ..., and a process sees those that CUDA_VISIBLE_DEVICES lists
 * when it first uses one, counted anew, as it is with CUDA; tests/nn/fake_nvml.c is the driver's library to that. The
 * LOWBEAM_FAKE_GPU_HIDDEN: of those the number of one that the driver's library has and CUDA does not show. The
 * log has them under their own numbers, and a line "PID CUDA1 seen 0" for each that a process sees.
 *
 * As CUDA's devices, in what decides over memory: buffers that are not the host's, aligned to 128 bytes, quantized rows
 * padded to 512 values, an allocation that does not fit gives NULL and an error in the log, host layers' large products
 * are done on the device, events are there (libllama then keeps several copies of the inputs when it splits layers).
 * Unlike them: no context, no pools. New memory is filled with NaNs, so that what reads before it writes is seen. */
#include <ggml-backend-impl.h>
#include <ggml-cpu.h>

#include "memory/plan.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void ggml_log_internal(enum ggml_log_level level, const char *format, ...); /* of ggml's library, in no header there */

enum { ALIGNMENT = 128, PADDED_ROW = 512, OFFLOAD_ROWS_LEAST = 32 };

typedef struct fake {
    char name[32], description[64];
    int number; /* of the device that this one is; -1: it is hidden */
    struct ggml_backend_device device;
    struct ggml_backend_buffer_type type, host_type;
    size_t total, held, peak;
    int n_graphs; /* computed so far */
} fake;

static fake fakes[LB_DEVICES_MAX];
static size_t n_fakes;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct ggml_backend_reg registry;

static bool as_cuda(void) {
    return getenv("LOWBEAM_FAKE_GPU_CUDA") != NULL;
}

/* Held by the mutex. One write a line: parent and engine child share the file. */
static void note(const fake *f, const char *what, size_t bytes) {
    const char *path = getenv("LOWBEAM_FAKE_GPU_LOG");
    const int fd = path ? open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644) : -1;
    if (fd < 0)
        return;
    char line[128], name[32];
    snprintf(name, sizeof name, as_cuda() ? "CUDA%d" : "FAKE%d", f->number);
    const int n = snprintf(line, sizeof line, "%d %s %s %zu\n", (int)getpid(), name, what, bytes);
    if (write(fd, line, (size_t)n) != n)
        abort(); /* a figure that is missing would make a test pass */
    close(fd);
}

/* Held by the mutex. */
static size_t left_on(const fake *f) {
    const char *path = getenv("LOWBEAM_FAKE_GPU_BALLAST");
    FILE *file = path ? fopen(path, "r") : NULL;
    size_t ballast = 0;
    if (file && fscanf(file, "%zu", &ballast) != 1)
        abort();
    if (file)
        fclose(file);
    return f->held + ballast < f->total ? f->total - f->held - ballast : 0;
}

/* Buffers */

static void buffer_free(ggml_backend_buffer_t buffer) {
    fake *f = buffer->buft->context;
    pthread_mutex_lock(&mutex);
    f->held -= buffer->size;
    pthread_mutex_unlock(&mutex);
    free(buffer->context);
}

static void *buffer_base(ggml_backend_buffer_t buffer) {
    return buffer->context;
}

static void buffer_memset(ggml_backend_buffer_t buffer, struct ggml_tensor *t, uint8_t value, size_t offset,
                          size_t size) {
    (void)buffer;
    memset((char *)t->data + offset, value, size);
}

static void buffer_set(ggml_backend_buffer_t buffer, struct ggml_tensor *t, const void *data, size_t offset,
                       size_t size) {
    (void)buffer;
    memcpy((char *)t->data + offset, data, size);
}

static void buffer_get(ggml_backend_buffer_t buffer, const struct ggml_tensor *t, void *data, size_t offset,
                       size_t size) {
    (void)buffer;
    memcpy(data, (const char *)t->data + offset, size);
}

/* From the host or from any pretended device. */
static bool buffer_copy(ggml_backend_buffer_t buffer, const struct ggml_tensor *src, struct ggml_tensor *dst) {
    (void)buffer;
    memcpy(dst->data, src->data, ggml_nbytes(src));
    return true;
}

static void buffer_clear(ggml_backend_buffer_t buffer, uint8_t value) {
    memset(buffer->context, value, buffer->size);
}

static const struct ggml_backend_buffer_i buffer_interface = {.free_buffer = buffer_free,
                                                              .get_base = buffer_base,
                                                              .memset_tensor = buffer_memset,
                                                              .set_tensor = buffer_set,
                                                              .get_tensor = buffer_get,
                                                              .cpy_tensor = buffer_copy,
                                                              .clear = buffer_clear};

static const char *type_name(ggml_backend_buffer_type_t type) {
    return ((fake *)type->context)->name;
}

/* Held by the mutex. */
static bool is_full(const fake *f) {
    const char *path = getenv("LOWBEAM_FAKE_GPU_FULL_ONCE");
    FILE *file = path ? fopen(path, "r") : NULL;
    char name[32] = "";
    if (file && fscanf(file, "%31s", name) != 1)
        abort();
    if (file)
        fclose(file);
    return file && strcmp(name, f->name) == 0 && unlink(path) == 0;
}

static ggml_backend_buffer_t type_alloc(ggml_backend_buffer_type_t type, size_t size) {
    fake *f = type->context;
    pthread_mutex_lock(&mutex);
    const bool fits = size <= left_on(f) && !is_full(f);
    if (fits) {
        f->held += size;
        if (f->held > f->peak)
            note(f, "peak", f->peak = f->held);
    } else {
        note(f, "failed", size);
    }
    pthread_mutex_unlock(&mutex);
    if (!fits) {
        ggml_log_internal(GGML_LOG_LEVEL_ERROR, "%s: allocating %.2f MiB on device %s: out of memory\n", __func__,
                          (double)size / (1 << 20), f->name);
        return NULL;
    }
    void *data = aligned_alloc(ALIGNMENT, (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT);
    if (!data)
        abort(); /* the machine's own memory, which is not what is tested */
    memset(data, 0xFF, size);
    return ggml_backend_buffer_init(type, buffer_interface, data, size);
}

static size_t type_alignment(ggml_backend_buffer_type_t type) {
    (void)type;
    return ALIGNMENT;
}

static size_t type_alloc_size(ggml_backend_buffer_type_t type, const struct ggml_tensor *t) {
    (void)type;
    size_t bytes = ggml_nbytes(t);
    if (ggml_is_quantized(t->type) && t->ne[0] % PADDED_ROW)
        bytes += ggml_row_size(t->type, PADDED_ROW - t->ne[0] % PADDED_ROW);
    return bytes;
}

static const struct ggml_backend_buffer_type_i type_interface = {.get_name = type_name,
                                                                 .alloc_buffer = type_alloc,
                                                                 .get_alignment = type_alignment,
                                                                 .get_alloc_size = type_alloc_size};

/* "Pinned" memory: the CPU's under another name. */

static const char *host_name(ggml_backend_buffer_type_t type) {
    (void)type;
    return "FAKE_Host";
}

static ggml_backend_buffer_t host_alloc(ggml_backend_buffer_type_t type, size_t size) {
    ggml_backend_buffer_t buffer = ggml_backend_buft_alloc_buffer(ggml_backend_cpu_buffer_type(), size);
    if (buffer)
        buffer->buft = type;
    return buffer;
}

static size_t host_alignment(ggml_backend_buffer_type_t type) {
    (void)type;
    return ggml_backend_buft_get_alignment(ggml_backend_cpu_buffer_type());
}

static bool host_is_host(ggml_backend_buffer_type_t type) {
    (void)type;
    return true;
}

static const struct ggml_backend_buffer_type_i host_interface = {
    .get_name = host_name, .alloc_buffer = host_alloc, .get_alignment = host_alignment, .is_host = host_is_host};

/* Backends: the context is the CPU backend that does the work. */

static const char *backend_name(ggml_backend_t backend) {
    return ((fake *)backend->device->context)->name;
}

static void backend_free(ggml_backend_t backend) {
    ggml_backend_free(backend->context);
    free(backend);
}

static void backend_set(ggml_backend_t backend, struct ggml_tensor *t, const void *data, size_t offset, size_t size) {
    (void)backend;
    memcpy((char *)t->data + offset, data, size);
}

static void backend_get(ggml_backend_t backend, const struct ggml_tensor *t, void *data, size_t offset, size_t size) {
    (void)backend;
    memcpy(data, (const char *)t->data + offset, size);
}

/* What a card could not reach must not be in its graph: here it would be computed without a word. */
static void check_is_here(const fake *f, const struct ggml_tensor *t) {
    const ggml_backend_buffer_t buffer = t->view_src ? t->view_src->buffer : t->buffer;
    if (!buffer || buffer->buft != &f->type)
        GGML_ABORT("%s is asked to compute with tensor %s, which is in %s", f->name, t->name,
                   buffer ? ggml_backend_buft_name(buffer->buft) : "no buffer");
}

static void check_is_not_lost(fake *f) {
    const char *path = getenv("LOWBEAM_FAKE_GPU_LOST");
    FILE *file = path ? fopen(path, "r") : NULL;
    char word[64];
    f->n_graphs++;
    while (file && fscanf(file, "%63s", word) == 1) {
        const char *colon = strchr(word, ':');
        const size_t n = colon ? (size_t)(colon - word) : strlen(word);
        if (n == strlen(f->name) && strncmp(word, f->name, n) == 0 && (!colon || f->n_graphs >= atoi(colon + 1)))
            GGML_ABORT("%s is lost at graph %d", f->name, f->n_graphs);
    }
    if (file)
        fclose(file);
}

static void wait_for_others(const fake *f) {
    enum { OPENED = 2, LONGEST_S = 60 };
    const char *text = getenv("LOWBEAM_FAKE_GPU_TOGETHER"), *path = text ? strchr(text, ':') : NULL;
    if (!path || f->n_graphs < OPENED)
        return;
    path++;
    if (f->n_graphs == OPENED) {
        const int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
        if (fd < 0 || write(fd, "x", 1) != 1)
            abort();
        close(fd);
        return;
    }
    struct stat st = {0};
    for (int i = 0; i < LONGEST_S * 500 && (stat(path, &st) != 0 || st.st_size < atoi(text)); i++)
        usleep(2000);
}

static enum ggml_status backend_compute(ggml_backend_t backend, struct ggml_cgraph *graph) {
    fake *f = backend->device->context;
    check_is_not_lost(f);
    wait_for_others(f);
    const char *slow = getenv("LOWBEAM_FAKE_GPU_MS");
    if (slow)
        usleep((useconds_t)atoi(slow) * 1000);
    for (int i = 0; i < ggml_graph_n_nodes(graph); i++) {
        const struct ggml_tensor *node = ggml_graph_node(graph, i);
        if (ggml_is_empty(node) || node->op == GGML_OP_NONE)
            continue;
        check_is_here(f, node);
        for (int k = 0; k < GGML_MAX_SRC; k++)
            if (node->src[k])
                check_is_here(f, node->src[k]);
    }
    return ggml_backend_graph_compute(backend->context, graph);
}

/* All is done when a call comes back. */
static void backend_event(ggml_backend_t backend, ggml_backend_event_t event) {
    (void)backend, (void)event;
}

static ggml_guid guid = {'l', 'o', 'w', 'b', 'e', 'a', 'm', ' ', 'f', 'a', 'k', 'e', ' ', 'g', 'p', 'u'};

static const struct ggml_backend_i backend_interface = {.get_name = backend_name,
                                                        .free = backend_free,
                                                        .set_tensor_async = backend_set,
                                                        .get_tensor_async = backend_get,
                                                        .graph_compute = backend_compute,
                                                        .event_record = backend_event,
                                                        .event_wait = backend_event};

/* Devices */

static size_t all_bytes[LB_DEVICES_MAX];

/* Once, and not when they are registered: that is before main. */
static void see(void) {
    const char *list = as_cuda() ? getenv("CUDA_VISIBLE_DEVICES") : NULL, *hidden = getenv("LOWBEAM_FAKE_GPU_HIDDEN");
    const int not_shown = hidden ? atoi(hidden) : -1;
    size_t n = 0;
    for (int next = 0; n < n_fakes; next++) {
        char *end;
        int number = list ? (int)strtol(list, &end, 10) : next;
        if (list && end == list)
            break;
        if (list)
            list = *end ? end + 1 : end;
        if (number == not_shown && !list)
            continue;
        if (number == not_shown || number < 0 || number >= (int)n_fakes)
            break; /* what comes behind it in a list is not shown either */
        fake *f = &fakes[n++];
        f->number = number;
        f->total = all_bytes[number];
        snprintf(f->description, sizeof f->description, "pretended GPU of %.1f MiB", (double)f->total / (1 << 20));
        if (as_cuda())
            note(f, "seen", 0);
    }
    for (; n < n_fakes; n++) {
        fakes[n].number = -1;
        snprintf(fakes[n].name, sizeof fakes[n].name, "hidden");
    }
}

static void see_once(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, see);
}

static ggml_backend_dev_t cpu(void) {
    return ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
}

static const char *device_name(ggml_backend_dev_t device) {
    return ((fake *)device->context)->name;
}

static const char *device_description(ggml_backend_dev_t device) {
    return ((fake *)device->context)->description;
}

static void device_memory(ggml_backend_dev_t device, size_t *left, size_t *total) {
    fake *f = device->context;
    pthread_mutex_lock(&mutex);
    *left = left_on(f);
    *total = f->total;
    pthread_mutex_unlock(&mutex);
}

static enum ggml_backend_dev_type device_type(ggml_backend_dev_t device) {
    see_once();
    return ((fake *)device->context)->number < 0 ? GGML_BACKEND_DEVICE_TYPE_IGPU : GGML_BACKEND_DEVICE_TYPE_GPU;
}

static void device_props(ggml_backend_dev_t device, struct ggml_backend_dev_props *props) {
    *props = (struct ggml_backend_dev_props){.name = device_name(device),
                                             .description = device_description(device),
                                             .type = GGML_BACKEND_DEVICE_TYPE_GPU,
                                             .caps = {.async = true, .host_buffer = true, .events = true}};
    device_memory(device, &props->memory_free, &props->memory_total);
}

static ggml_backend_t device_init(ggml_backend_dev_t device, const char *params) {
    (void)params;
    ggml_backend_t backend = calloc(1, sizeof *backend), worker = ggml_backend_dev_init(cpu(), NULL);
    if (!backend || !worker)
        abort();
    ggml_backend_cpu_set_n_threads(worker, 1); /* of several the sums may come out otherwise, and ggml's spin */
    *backend = (struct ggml_backend){.guid = &guid, .iface = backend_interface, .device = device, .context = worker};
    return backend;
}

static ggml_backend_buffer_type_t device_buffer_type(ggml_backend_dev_t device) {
    return &((fake *)device->context)->type;
}

static ggml_backend_buffer_type_t device_host_type(ggml_backend_dev_t device) {
    return &((fake *)device->context)->host_type;
}

static bool device_supports_op(ggml_backend_dev_t device, const struct ggml_tensor *op) {
    (void)device;
    return ggml_backend_dev_supports_op(cpu(), op);
}

static bool device_supports_type(ggml_backend_dev_t device, ggml_backend_buffer_type_t type) {
    return type == &((fake *)device->context)->type;
}

static bool device_offloads(ggml_backend_dev_t device, const struct ggml_tensor *op) {
    (void)device;
    const int64_t rows = op->op == GGML_OP_GET_ROWS  ? 0
                         : op->op == GGML_OP_MUL_MAT ? op->ne[1]
                         : op->op == GGML_OP_ROPE    ? op->ne[2]
                                                     : ggml_nrows(op);
    return rows >= OFFLOAD_ROWS_LEAST;
}

static ggml_backend_event_t device_event_new(ggml_backend_dev_t device) {
    ggml_backend_event_t event = calloc(1, sizeof *event);
    if (event)
        event->device = device;
    return event;
}

static void device_event_free(ggml_backend_dev_t device, ggml_backend_event_t event) {
    (void)device;
    free(event);
}

static void device_event_synchronize(ggml_backend_dev_t device, ggml_backend_event_t event) {
    (void)device, (void)event;
}

static const struct ggml_backend_device_i device_interface = {.get_name = device_name,
                                                              .get_description = device_description,
                                                              .get_memory = device_memory,
                                                              .get_type = device_type,
                                                              .get_props = device_props,
                                                              .init_backend = device_init,
                                                              .get_buffer_type = device_buffer_type,
                                                              .get_host_buffer_type = device_host_type,
                                                              .supports_op = device_supports_op,
                                                              .supports_buft = device_supports_type,
                                                              .offload_op = device_offloads,
                                                              .event_new = device_event_new,
                                                              .event_free = device_event_free,
                                                              .event_synchronize = device_event_synchronize};

static const char *registry_name(ggml_backend_reg_t reg) {
    (void)reg;
    return "FAKE";
}

static size_t registry_count(ggml_backend_reg_t reg) {
    (void)reg;
    return n_fakes;
}

static ggml_backend_dev_t registry_device(ggml_backend_reg_t reg, size_t index) {
    (void)reg;
    return &fakes[index].device;
}

static void make(fake *f, size_t index) {
    snprintf(f->name, sizeof f->name, as_cuda() ? "CUDA%zu" : "FAKE%zu", index);
    f->device = (struct ggml_backend_device){device_interface, &registry, f};
    f->type = (struct ggml_backend_buffer_type){type_interface, &f->device, f};
    f->host_type = (struct ggml_backend_buffer_type){host_interface, &f->device, f};
}

/* Before main, so that they are there for whoever asks first. */
__attribute__((constructor)) static void register_fakes(void) {
    const char *text = getenv("LOWBEAM_FAKE_GPUS");
    if (!text)
        return;
    int n = 0;
    if (lb_plan_vram_parse(text, all_bytes, &n, NULL) != LB_STATUS_OK) {
        fprintf(stderr, "LOWBEAM_FAKE_GPUS=%s: no sizes as --vram takes them\n", text);
        exit(1);
    }
    n_fakes = (size_t)n;
    for (size_t i = 0; i < n_fakes; i++)
        make(&fakes[i], i);
    registry = (struct ggml_backend_reg){
        GGML_BACKEND_API_VERSION,
        {.get_name = registry_name, .get_device_count = registry_count, .get_device = registry_device},
        NULL};
    ggml_backend_register(&registry);
}
