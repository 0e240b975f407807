/* Values kept in host memory under a limit in bytes; the one not used for the longest time goes first.
 *
 *     lb_cache *cache = lb_cache_new(limit);
 *     void *clip = lb_cache_get(cache, "clip a.mp4");                  // in use until it is released
 *     if (!clip && lb_cache_reserve(cache, bytes)) {                   // makes room before anything is allocated
 *         clip = make();
 *         lb_cache_put(cache, "clip a.mp4", clip, bytes, free_clip);   // in use as well
 *     }
 *     lb_cache_release(cache, clip);
 *     lb_cache_free(cache);
 *
 * What is kept and what is reserved together never exceed the limit. Values in use are never evicted; one that is
 * larger than the limit is never taken. Thread-safe; free_value is called with the cache locked and must not call it.
 */
#ifndef LB_MEMORY_CACHE_H
#define LB_MEMORY_CACHE_H

#include <stdbool.h>
#include <stddef.h>

typedef struct lb_cache lb_cache;

lb_cache *lb_cache_new(size_t limit_bytes); /* NULL: no memory */
void lb_cache_free(lb_cache *cache);        /* with its values, in use or not. NULL is allowed */

/* The value, in use now and the youngest; NULL: not there. cache NULL is allowed. */
void *lb_cache_get(lb_cache *cache, const char *key);

/* Evicts until bytes more have room, and counts them. False: they have none, now (too much is in use; nothing was
 * evicted in vain) or ever (bytes > limit). */
bool lb_cache_reserve(lb_cache *cache, size_t bytes);
void lb_cache_unreserve(lb_cache *cache, size_t bytes);

/* A value that bytes were reserved for: kept, and in use. key: copied. A value of the same key that is there already
 * goes as soon as nobody uses it. False: no memory; the value stays the caller's, and the bytes reserved. */
bool lb_cache_put(lb_cache *cache, const char *key, void *value, size_t bytes, void (*free_value)(void *value));

void lb_cache_release(lb_cache *cache, const void *value); /* one use less. NULL is allowed */

/* Forgets a value: freed as soon as nobody uses it. */
void lb_cache_drop(lb_cache *cache, const char *key);

size_t lb_cache_limit(const lb_cache *cache);
size_t lb_cache_bytes(lb_cache *cache); /* kept and reserved */

#endif
