#include "memory/ledger.h"

#include "base/error.h"
#include "base/time.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { HOST = LB_DEVICES_MAX, N_PLACES };

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static size_t held[N_PLACES][LB_COMPONENT_COUNT], total[N_PLACES];
static size_t peak[LB_PHASE_COUNT][N_PLACES][LB_COMPONENT_COUNT + 1];
static lb_phase phase_now = LB_PHASE_LOAD;
static _Thread_local char video_now[256]; /* one is made ready while another is answered */
static int trace_fd = -1;

static const struct {
    const char *text, *code;
    int on_device;
} component_table[LB_COMPONENT_COUNT] = {
#define LB_COMPONENT_ROW(code, text, device) [LB_COMPONENT_##code] = {text, #code, device},
    LB_COMPONENT_LIST(LB_COMPONENT_ROW)
#undef LB_COMPONENT_ROW
};

static const char *const phase_table[LB_PHASE_COUNT] = {
#define LB_PHASE_ROW(code, text) [LB_PHASE_##code] = text,
    LB_PHASE_LIST(LB_PHASE_ROW)
#undef LB_PHASE_ROW
};

const char *lb_component_text(lb_component component) {
    return component_table[component].text;
}

const char *lb_component_name(lb_component component) {
    static _Thread_local char name[32];
    const char *code = component_table[component].code;
    size_t i = 0;
    for (; code[i] && i + 1 < sizeof name; i++)
        name[i] = (char)(code[i] >= 'A' && code[i] <= 'Z' ? code[i] + 32 : code[i]); /* not tolower: locales */
    name[i] = 0;
    return name;
}

int lb_component_on_device(lb_component component) {
    return component_table[component].on_device;
}

const char *lb_phase_text(lb_phase phase) {
    return phase_table[phase];
}

static int place_of(int device, lb_component component) {
    if (!component_table[component].on_device)
        return HOST;
    return device >= 0 && device < LB_DEVICES_MAX ? device : 0;
}

static void raise_peaks(int place) {
    size_t *p = peak[phase_now][place];
    for (int i = 0; i < LB_COMPONENT_COUNT; i++)
        if (held[place][i] > p[i])
            p[i] = held[place][i];
    if (total[place] > p[LB_COMPONENT_COUNT])
        p[LB_COMPONENT_COUNT] = total[place];
}

/* One write a line: with O_APPEND the lines of several processes do not mix. */
static void trace(const char *event, int place, lb_component component, size_t bytes) {
    if (trace_fd < 0)
        return;
    char line[1024];
    int n = snprintf(line, sizeof line,
                     "{\"t\":%.6f,\"pid\":%d,\"event\":\"%s\",\"device\":%d,\"component\":\"%s\",\"bytes\":%zu,"
                     "\"held\":%zu,\"phase\":\"%s\",\"video\":\"%s\"}\n",
                     lb_now_s(), (int)getpid(), event, place == HOST ? -1 : place, lb_component_name(component), bytes,
                     total[place], phase_table[phase_now], video_now);
    if (n > 0 && write(trace_fd, line, (size_t)n) < 0)
        trace_fd = -1; /* a full disk must not end the run */
}

void lb_ledger_add_on(int device, lb_component component, size_t bytes) {
    const int place = place_of(device, component);
    pthread_mutex_lock(&mutex);
    held[place][component] += bytes;
    total[place] += bytes;
    raise_peaks(place);
    if (bytes)
        trace("add", place, component, bytes);
    pthread_mutex_unlock(&mutex);
}

void lb_ledger_sub_on(int device, lb_component component, size_t bytes) {
    const int place = place_of(device, component);
    pthread_mutex_lock(&mutex);
    held[place][component] -= bytes;
    total[place] -= bytes;
    if (bytes)
        trace("sub", place, component, bytes);
    pthread_mutex_unlock(&mutex);
}

void lb_ledger_add(lb_component component, size_t bytes) {
    lb_ledger_add_on(0, component, bytes);
}

void lb_ledger_sub(lb_component component, size_t bytes) {
    lb_ledger_sub_on(0, component, bytes);
}

void lb_ledger_phase(lb_phase phase) {
    pthread_mutex_lock(&mutex);
    phase_now = phase;
    for (int place = 0; place < N_PLACES; place++)
        raise_peaks(place);
    pthread_mutex_unlock(&mutex);
}

lb_phase lb_ledger_phase_now(void) {
    pthread_mutex_lock(&mutex);
    lb_phase phase = phase_now;
    pthread_mutex_unlock(&mutex);
    return phase;
}

void lb_ledger_video(const char *video) {
    pthread_mutex_lock(&mutex);
    size_t n = 0;
    for (const char *c = video; *c && n + 7 < sizeof video_now; c++) {
        const unsigned char byte = (unsigned char)*c;
        if (byte < 0x20 || byte == '"' || byte == '\\')
            n += (size_t)snprintf(video_now + n, sizeof video_now - n, "\\u%04x", byte);
        else
            video_now[n++] = (char)byte;
    }
    video_now[n] = 0;
    pthread_mutex_unlock(&mutex);
}

size_t lb_ledger_get_on(int device, lb_component component) {
    const int place = place_of(device, component);
    pthread_mutex_lock(&mutex);
    size_t bytes = held[place][component];
    pthread_mutex_unlock(&mutex);
    return bytes;
}

size_t lb_ledger_get(lb_component component) {
    size_t sum = 0;
    pthread_mutex_lock(&mutex);
    for (int place = 0; place < N_PLACES; place++)
        sum += held[place][component];
    pthread_mutex_unlock(&mutex);
    return sum;
}

size_t lb_ledger_device_bytes_on(int device) {
    pthread_mutex_lock(&mutex);
    size_t bytes = total[device];
    pthread_mutex_unlock(&mutex);
    return bytes;
}

size_t lb_ledger_device_bytes(void) {
    size_t sum = 0;
    pthread_mutex_lock(&mutex);
    for (int device = 0; device < LB_DEVICES_MAX; device++)
        sum += total[device];
    pthread_mutex_unlock(&mutex);
    return sum;
}

size_t lb_ledger_host_bytes(void) {
    pthread_mutex_lock(&mutex);
    size_t bytes = total[HOST];
    pthread_mutex_unlock(&mutex);
    return bytes;
}

size_t lb_ledger_peak_on(int device, lb_phase phase, lb_component component) {
    const int place = component == LB_COMPONENT_COUNT ? device : place_of(device, component);
    pthread_mutex_lock(&mutex);
    size_t bytes = peak[phase][place][component];
    pthread_mutex_unlock(&mutex);
    return bytes;
}

lb_status lb_ledger_trace(const char *path, lb_error *error) {
    pthread_mutex_lock(&mutex);
    int old = trace_fd;
    trace_fd = path ? open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644) : -1;
    int failed = path && trace_fd < 0 ? errno : 0;
    pthread_mutex_unlock(&mutex);
    if (old >= 0)
        close(old);
    return failed ? lb_error_set(error, LB_STATUS_IO, "%s: the trace cannot be written: %s", path, strerror(failed))
                  : LB_STATUS_OK;
}
