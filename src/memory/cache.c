#include "memory/cache.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

typedef struct entry {
    struct entry *older, *younger;
    char *key; /* NULL: forgotten, there only for those who use it */
    void *value;
    size_t bytes;
    int n_uses;
    void (*free_value)(void *value);
} entry;

struct lb_cache {
    pthread_mutex_t mutex;
    entry *oldest, *youngest;
    size_t limit, bytes; /* bytes: kept and reserved */
};

lb_cache *lb_cache_new(size_t limit_bytes) {
    lb_cache *cache = calloc(1, sizeof *cache);
    if (cache) {
        cache->limit = limit_bytes;
        pthread_mutex_init(&cache->mutex, NULL);
    }
    return cache;
}

static void take_out(lb_cache *cache, entry *e) {
    *(e->older ? &e->older->younger : &cache->oldest) = e->younger;
    *(e->younger ? &e->younger->older : &cache->youngest) = e->older;
    e->older = e->younger = NULL;
}

static void append(lb_cache *cache, entry *e) {
    e->older = cache->youngest;
    *(cache->youngest ? &cache->youngest->younger : &cache->oldest) = e;
    cache->youngest = e;
}

static void evict(lb_cache *cache, entry *e) {
    take_out(cache, e);
    if (e->free_value)
        e->free_value(e->value);
    cache->bytes -= e->bytes;
    free(e->key);
    free(e);
}

void lb_cache_free(lb_cache *cache) {
    if (!cache)
        return;
    while (cache->oldest)
        evict(cache, cache->oldest);
    pthread_mutex_destroy(&cache->mutex);
    free(cache);
}

static entry *find(lb_cache *cache, const char *key) {
    for (entry *e = cache->youngest; e; e = e->older)
        if (e->key && strcmp(e->key, key) == 0)
            return e;
    return NULL;
}

void *lb_cache_get(lb_cache *cache, const char *key) {
    if (!cache)
        return NULL;
    pthread_mutex_lock(&cache->mutex);
    entry *e = find(cache, key);
    if (e) {
        e->n_uses++;
        take_out(cache, e);
        append(cache, e);
    }
    void *value = e ? e->value : NULL;
    pthread_mutex_unlock(&cache->mutex);
    return value;
}

/* What is in use stays whatever is done. */
static size_t evictable(const lb_cache *cache) {
    size_t bytes = 0;
    for (const entry *e = cache->oldest; e; e = e->younger)
        if (e->n_uses == 0)
            bytes += e->bytes;
    return bytes;
}

bool lb_cache_reserve(lb_cache *cache, size_t bytes) {
    pthread_mutex_lock(&cache->mutex);
    const bool fits = bytes <= cache->limit && cache->bytes - evictable(cache) <= cache->limit - bytes;
    for (entry *e = cache->oldest, *next; fits && e && cache->bytes > cache->limit - bytes; e = next) {
        next = e->younger;
        if (e->n_uses == 0)
            evict(cache, e);
    }
    if (fits)
        cache->bytes += bytes;
    pthread_mutex_unlock(&cache->mutex);
    return fits;
}

void lb_cache_unreserve(lb_cache *cache, size_t bytes) {
    pthread_mutex_lock(&cache->mutex);
    cache->bytes -= bytes;
    pthread_mutex_unlock(&cache->mutex);
}

static void forget(lb_cache *cache, entry *e) {
    free(e->key);
    e->key = NULL;
    if (e->n_uses == 0)
        evict(cache, e);
}

bool lb_cache_put(lb_cache *cache, const char *key, void *value, size_t bytes, void (*free_value)(void *value)) {
    entry *e = malloc(sizeof *e);
    char *copy = strdup(key);
    if (!e || !copy) {
        free(e);
        free(copy);
        return false;
    }
    *e = (entry){.key = copy, .value = value, .bytes = bytes, .n_uses = 1, .free_value = free_value};
    pthread_mutex_lock(&cache->mutex);
    entry *former = find(cache, key);
    if (former)
        forget(cache, former);
    append(cache, e);
    pthread_mutex_unlock(&cache->mutex);
    return true;
}

void lb_cache_release(lb_cache *cache, const void *value) {
    if (!value)
        return;
    pthread_mutex_lock(&cache->mutex);
    entry *e = cache->youngest;
    while (e && e->value != value)
        e = e->older;
    if (e && --e->n_uses == 0 && !e->key)
        evict(cache, e);
    pthread_mutex_unlock(&cache->mutex);
}

void lb_cache_drop(lb_cache *cache, const char *key) {
    pthread_mutex_lock(&cache->mutex);
    entry *e = find(cache, key);
    if (e)
        forget(cache, e);
    pthread_mutex_unlock(&cache->mutex);
}

size_t lb_cache_limit(const lb_cache *cache) {
    return cache->limit;
}

size_t lb_cache_bytes(lb_cache *cache) {
    pthread_mutex_lock(&cache->mutex);
    const size_t bytes = cache->bytes;
    pthread_mutex_unlock(&cache->mutex);
    return bytes;
}
