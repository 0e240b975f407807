#include "faults.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ggml-alloc.h>
#include <ggml-backend.h>
#include <gguf.h>
#include <jansson.h>
#include <llama.h>
#include <png.h>
#include <pthread.h>
#include <spawn.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PLACES_MAX = 4096 };

static struct place {
    const void *address;
    const char *name;
    size_t recorded, n; /* calls in the recording, and since faults_arm */
} places[PLACES_MAX];
static size_t n_places;
static enum { OFF, RECORD, ARMED } mode;
static struct place *target;
static size_t target_k;
static bool onward, hit;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static _Thread_local bool within; /* a wrapped function that calls another one is one call */
extern const char __executable_start;

/* Whether this call is to fail. */
static bool fails(const char *name, const void *address) {
    if (__atomic_load_n(&mode, __ATOMIC_ACQUIRE) == OFF || within)
        return false;
    pthread_mutex_lock(&mutex);
    struct place *p = NULL;
    for (size_t i = 0; i < n_places && !p; i++)
        if (places[i].address == address)
            p = &places[i];
    if (!p && mode == RECORD && n_places < PLACES_MAX) {
        p = &places[n_places++];
        *p = (struct place){.address = address, .name = name};
    }
    bool failed = false;
    if (mode == RECORD && p)
        p->recorded++;
    if (mode == ARMED && !hit && p && p == target)
        failed = hit = p->n++ == target_k;
    else if (mode == ARMED && hit)
        failed = onward;
    pthread_mutex_unlock(&mutex);
    return failed;
}

void faults_record(void) {
    n_places = 0;
    __atomic_store_n(&mode, RECORD, __ATOMIC_RELEASE);
}

void faults_arm(size_t place, size_t k, bool and_onward) {
    target = &places[place];
    target->n = 0;
    target_k = k;
    onward = and_onward;
    hit = false;
    __atomic_store_n(&mode, ARMED, __ATOMIC_RELEASE);
}

size_t faults_stop(void) {
    __atomic_store_n(&mode, OFF, __ATOMIC_RELEASE);
    return n_places;
}

bool faults_hit(void) {
    return hit;
}

size_t faults_calls(size_t place) {
    return places[place].recorded;
}

const char *faults_name(size_t place) {
    return places[place].name;
}

const void *faults_address(size_t place) {
    return (const void *)((const char *)places[place].address - &__executable_start);
}

#define ADDRESS __builtin_extract_return_addr(__builtin_return_address(0))

#define WRAP(type, name, parameters, arguments, ...)                                                                   \
    type __real_##name parameters;                                                                                     \
    type __wrap_##name parameters;                                                                                     \
    type __wrap_##name parameters {                                                                                    \
        if (fails(#name, ADDRESS)) {                                                                                   \
            __VA_ARGS__;                                                                                               \
        }                                                                                                              \
        const bool was_within = within;                                                                                \
        within = true;                                                                                                 \
        type result = __real_##name arguments;                                                                         \
        within = was_within;                                                                                           \
        return result;                                                                                                 \
    }
#include "wraps.h"
#undef WRAP

/* Those with a variable list of arguments. */
int __real_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...) {
    va_list args;
    va_start(args, flags);
    const mode_t bits = flags & (O_CREAT | __O_TMPFILE) ? va_arg(args, mode_t) : 0;
    va_end(args);
    if (fails("open", ADDRESS)) {
        errno = EMFILE;
        return -1;
    }
    return __real_open(path, flags, bits);
}

int __real_vasprintf(char **text, const char *format, va_list args);
int __wrap_asprintf(char **text, const char *format, ...) __attribute__((format(printf, 2, 3)));
int __wrap_asprintf(char **text, const char *format, ...) {
    if (fails("asprintf", ADDRESS)) {
        errno = ENOMEM;
        *text = (char *)(uintptr_t)8; /* glibc leaves it undefined: whoever reads it is found */
        return -1;
    }
    va_list args;
    va_start(args, format);
    int n = __real_vasprintf(text, format, args);
    va_end(args);
    return n;
}

int __wrap_vasprintf(char **text, const char *format, va_list args);
int __wrap_vasprintf(char **text, const char *format, va_list args) {
    if (fails("vasprintf", ADDRESS)) {
        errno = ENOMEM;
        *text = (char *)(uintptr_t)8;
        return -1;
    }
    return __real_vasprintf(text, format, args);
}

json_t *__wrap_json_pack(const char *format, ...);
json_t *__wrap_json_pack(const char *format, ...) {
    va_list args;
    va_start(args, format);
    json_t *value = json_vpack_ex(NULL, 0, format, args);
    va_end(args);
    if (fails("json_pack", ADDRESS)) {
        json_decref(value); /* with what it took over */
        value = NULL;
    }
    return value;
}
