#include "nn/device.h"

#include "base/error.h"
#include "base/log.h"
#include "nn/log.h"
#include "nn/nvml.h"

#include <ctype.h>
#include <ggml-backend.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

enum { CARDS_MAX = 64 };
static size_t
    card_free[CARDS_MAX]; /* before the libraries were asked for their devices, which makes contexts; 0: not known */

static bool started; /* the libraries have their devices */

/* Of a process that sees some cards only, see lb_devices_limit: what its CUDA0, CUDA1, ... are called outside. */
static int shown[LB_DEVICES_MAX], n_shown;

static void look_once(void) {
    /* Cards are numbered as nvidia-smi and NVML do it. CUDA's own order is the fastest first: of two different cards
     * the memory of one would be read for the other's. */
    setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID", 0);
    lb_nvml_memory memory;
    for (int i = 0; i < CARDS_MAX && lb_nvml_read(i, &memory); i++)
        card_free[i] = memory.free;
}

static void look_first(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, look_once);
}

static void start_once(void) {
    lb_nn_log_start();
    look_first();
    started = true;
    /* Backends built as plugins; those linked in are there already, the CPU's among them. Not in any case, because ggml
     * looks for plugins in the current folder, too, which may be a stranger's. */
    if (!ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU))
        ggml_backend_load_all();
}

static void *used[LB_DEVICES_MAX];        /* handles by place */
static size_t first_free[LB_DEVICES_MAX]; /* what was free when this process first looked, before it took anything */

static void start(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, start_once);
}

/* By the driver's library where it is there: asking CUDA would make a context, half a GiB of the memory asked about. */
static void read_memory(const lb_device *device, size_t *free_bytes, size_t *total_bytes) {
    lb_nvml_memory memory;
    if (lb_nvml_read(lb_nvml_index(device->name), &memory)) {
        *free_bytes = memory.free;
        *total_bytes = memory.total;
    } else {
        ggml_backend_dev_memory(device->handle, free_bytes, total_bytes);
    }
}

/* name: [64] */
static const char *name_of(ggml_backend_dev_t dev, char *name) {
    const int i = lb_nvml_index(ggml_backend_dev_name(dev));
    if (i >= 0 && i < n_shown)
        snprintf(name, 64, "CUDA%d", shown[i]);
    else
        snprintf(name, 64, "%s", ggml_backend_dev_name(dev));
    return name;
}

static void describe(ggml_backend_dev_t found, int place, lb_device *device) {
    *device = (lb_device){0};
    device->handle = found;
    device->place = place;
    device->is_cpu = ggml_backend_dev_type(found) == GGML_BACKEND_DEVICE_TYPE_CPU;
    name_of(found, device->name);
    snprintf(device->description, sizeof device->description, "%s", ggml_backend_dev_description(found));
    read_memory(device, &device->free_bytes, &device->total_bytes);
    const int card = lb_nvml_index(device->name);
    if (used[place] != found)
        first_free[place] = card >= 0 && card < CARDS_MAX && card_free[card] ? card_free[card] : device->free_bytes;
    device->first_free_bytes = first_free[place];
    used[place] = found;
}

/* Devices that can hold a model: not those that only help the CPU. */
static ggml_backend_dev_t candidate(size_t i) {
    ggml_backend_dev_t dev = ggml_backend_dev_get(i);
    return ggml_backend_dev_type(dev) == GGML_BACKEND_DEVICE_TYPE_ACCEL ? NULL : dev;
}

static ggml_backend_dev_t find_named(const char *name, size_t length) {
    for (size_t i = 0; i < ggml_backend_dev_count(); i++) {
        char own[64];
        ggml_backend_dev_t dev = candidate(i);
        if (dev && strlen(name_of(dev, own)) == length && strncasecmp(name, own, length) == 0)
            return dev;
    }
    return NULL;
}

static lb_status no_such_device(const char *name, size_t length, lb_error *error) {
    char names[512] = "", own[64];
    for (size_t i = 0; i < ggml_backend_dev_count(); i++) {
        ggml_backend_dev_t dev = candidate(i);
        size_t n = strlen(names);
        if (dev)
            snprintf(names + n, sizeof names - n, "%s%s", n ? ", " : "", name_of(dev, own));
    }
    return lb_error_set(error, LB_STATUS_NOT_FOUND, "--device %.*s: there is no such device; there are: %s",
                        (int)length, name, names[0] ? names : "none");
}

bool lb_device_is_auto(const char *names) {
    return !names || !*names || strcasecmp(names, "auto") == 0;
}

/* A card's number at the start of a list of names, which goes on behind it; -1: it is another device, or no such list.
 */
static int read_card(const char **names) {
    const size_t length = strcspn(*names, ",");
    char own[32];
    const int card = length > 4 ? atoi(*names + 4) : -1;
    snprintf(own, sizeof own, "CUDA%d", card);
    const bool is_last = (*names)[length] == 0;
    if (card < 0 || card >= CARDS_MAX || strlen(own) != length || strncasecmp(*names, own, length) != 0 ||
        (!is_last && !(*names)[length + 1]))
        return -1;
    *names += length + !is_last;
    return card;
}

/* What cards there are can be told, and changed, before the libraries have them; but for one offered as several. */
static bool is_early(void) {
    if (started || getenv("GGML_CUDA_DEVICES"))
        return false;
    look_first();
    return true;
}

bool lb_devices_look(const char *names, lb_device *devices, int *n_devices) {
    const bool all = lb_device_is_auto(names);
    const int n_cards = is_early() ? lb_nvml_count() : 0;
    *n_devices = 0;
    for (int i = 0; n_cards > 0 && *n_devices < LB_DEVICES_MAX && (all ? i < n_cards : *names != 0); i++) {
        lb_nvml_memory memory;
        const int card = all ? i : read_card(&names);
        if (!lb_nvml_read(card, &memory))
            return false; /* CUDA may see this otherwise */
        lb_device *device = &devices[(*n_devices)++];
        *device = (lb_device){.total_bytes = memory.total, .free_bytes = memory.free, .first_free_bytes = memory.free};
        snprintf(device->name, sizeof device->name, "CUDA%d", card);
        for (int k = 0; k < *n_devices - 1; k++)
            if (strcmp(devices[k].name, device->name) == 0)
                return false;
    }
    return *n_devices > 0 && (all || !*names);
}

bool lb_devices_limit(const char *names, int n) {
    char list[1024] = "";
    int cards[LB_DEVICES_MAX];
    if (!is_early() || n > LB_DEVICES_MAX)
        return false;
    for (int i = 0; i < n; i++) {
        lb_nvml_memory memory;
        char entry[128];
        const size_t length = strlen(list);
        cards[i] = read_card(&names);
        if (!lb_nvml_read(cards[i], &memory) || !lb_nvml_entry(cards[i], entry, sizeof entry) ||
            snprintf(list + length, sizeof list - length, "%s%s", i ? "," : "", entry) >= (int)(sizeof list - length))
            return false;
    }
    if (n < 1 || setenv("CUDA_VISIBLE_DEVICES", list, 1) != 0)
        return false;
    memcpy(shown, cards, (size_t)n * sizeof cards[0]);
    n_shown = n;
    return true;
}

void lb_devices_rename(char *line, size_t n) {
    for (char *at = line; n_shown > 0 && (at = strstr(at, "CUDA"));) {
        at += 4;
        if (!isdigit((unsigned char)*at))
            continue;
        char *end, rest[1024];
        const long i = strtol(at, &end, 10);
        if (i >= n_shown)
            continue;
        snprintf(rest, sizeof rest, "%s", end);
        snprintf(at, n - (size_t)(at - line), "%d%s", shown[i], rest);
    }
}

lb_status lb_devices_find(const char *names, lb_device *devices, int *n_devices, lb_error *error) {
    *n_devices = 0;
    start();
    if (lb_device_is_auto(names)) {
        for (size_t i = 0; i < ggml_backend_dev_count() && *n_devices < LB_DEVICES_MAX; i++) {
            ggml_backend_dev_t dev = candidate(i);
            if (dev && ggml_backend_dev_type(dev) == GGML_BACKEND_DEVICE_TYPE_GPU) {
                describe(dev, *n_devices, &devices[*n_devices]);
                ++*n_devices;
            }
        }
        ggml_backend_dev_t cpu = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
        if (*n_devices == 0 && cpu)
            describe(cpu, 0, &devices[(*n_devices)++]);
        return *n_devices ? LB_STATUS_OK : no_such_device("auto", 4, error);
    }
    for (const char *at = names; at;) {
        const char *comma = strchr(at, ',');
        const size_t length = comma ? (size_t)(comma - at) : strlen(at);
        ggml_backend_dev_t dev = find_named(at, length);
        if (!dev)
            return no_such_device(at, length, error);
        if (*n_devices == LB_DEVICES_MAX)
            return lb_error_set(error, LB_STATUS_INVALID_ARGUMENT, "--device %s: more than %d devices", names,
                                LB_DEVICES_MAX);
        for (int i = 0; i < *n_devices; i++)
            if (devices[i].handle == dev)
                return lb_error_set(error, LB_STATUS_INVALID_ARGUMENT, "--device %s: %s is named twice", names,
                                    devices[i].name);
        describe(dev, *n_devices, &devices[*n_devices]);
        ++*n_devices;
        at = comma ? comma + 1 : NULL;
    }
    for (int i = 0; i<*n_devices && * n_devices> 1; i++)
        if (devices[i].is_cpu)
            return lb_error_set(error, LB_STATUS_INVALID_ARGUMENT,
                                "--device %s: the CPU stands alone; what does not fit a GPU goes to host memory by "
                                "itself (--vram)",
                                names);
    return LB_STATUS_OK;
}

lb_status lb_device_find(const char *name, lb_device *device, lb_error *error) {
    lb_device found[LB_DEVICES_MAX];
    int n;
    if (lb_devices_look(name, found, &n) && (n == 1 || lb_device_is_auto(name)))
        lb_devices_limit(found[0].name, 1);
    lb_status status = lb_devices_find(name, found, &n, error);
    if (status == LB_STATUS_OK && n_shown > 0 && found[0].is_cpu && lb_device_is_auto(name))
        lb_log(LB_LOG_WARN, "device", "CUDA does not show CUDA%d: it is the CPU; --device names another", shown[0]);
    *device = status == LB_STATUS_OK ? found[0] : (lb_device){0};
    return status;
}

int lb_device_place(const void *handle) {
    for (int i = 0; i < LB_DEVICES_MAX; i++)
        if (used[i] == handle)
            return i;
    return 0;
}

size_t lb_device_free_bytes(const lb_device *device) {
    size_t free_bytes = 0, total = 0;
    read_memory(device, &free_bytes, &total);
    return free_bytes;
}

size_t lb_device_reserved_bytes(const lb_device *device) {
    if (!device->is_cpu) {
        const size_t free_bytes = lb_device_free_bytes(device);
        return first_free[device->place] > free_bytes ? first_free[device->place] - free_bytes : 0;
    }
    FILE *statm = fopen("/proc/self/statm", "r");
    if (!statm)
        return 0;
    unsigned long long size = 0, resident = 0;
    int n = fscanf(statm, "%llu %llu", &size, &resident);
    fclose(statm);
    return n == 2 ? (size_t)resident * (size_t)sysconf(_SC_PAGESIZE) : 0;
}
