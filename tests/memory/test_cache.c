/* The cache of host memory: never above its limit, whatever is asked of it; the oldest goes first, what is in use
 * never; what is larger than the limit is not taken. The values enter themselves into the ledger, as clips and
 * embeddings do. */
#include "memory/cache.h"
#include "memory/host.h"
#include "memory/ledger.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

typedef struct block {
    size_t bytes;
} block;

static block *block_new(size_t bytes) {
    block *b = malloc(sizeof *b);
    b->bytes = bytes;
    lb_ledger_add(LB_COMPONENT_FRAMES, bytes);
    return b;
}

static void block_free(void *value) {
    lb_ledger_sub(LB_COMPONENT_FRAMES, ((block *)value)->bytes);
    free(value);
}

/* As a user would: reserve, allocate, put. NULL: no room. */
static block *make(lb_cache *cache, const char *key, size_t bytes) {
    if (!lb_cache_reserve(cache, bytes))
        return NULL;
    block *b = block_new(bytes);
    assert_true(lb_cache_put(cache, key, b, bytes, block_free));
    return b;
}

static bool is_there(lb_cache *cache, const char *key) {
    void *value = lb_cache_get(cache, key);
    lb_cache_release(cache, value);
    return value != NULL;
}

static void test_the_oldest_goes_first(void **state) {
    (void)state;
    lb_cache *cache = lb_cache_new(100);
    lb_cache_release(cache, make(cache, "a", 40));
    lb_cache_release(cache, make(cache, "b", 40));
    assert_true(is_there(cache, "a")); /* the younger one now */
    lb_cache_release(cache, make(cache, "c", 40));
    assert_false(is_there(cache, "b"));
    assert_true(is_there(cache, "a"));
    assert_true(is_there(cache, "c"));
    assert_int_equal(lb_cache_bytes(cache), 80);
    assert_int_equal(lb_ledger_get(LB_COMPONENT_FRAMES), 80);
    lb_cache_free(cache);
    assert_int_equal(lb_ledger_get(LB_COMPONENT_FRAMES), 0);
}

static void test_what_is_in_use_stays(void **state) {
    (void)state;
    lb_cache *cache = lb_cache_new(100);
    block *a = make(cache, "a", 60);
    lb_cache_release(cache, make(cache, "b", 30));
    assert_null(make(cache, "c", 50)); /* even without b there is no room: b is not evicted in vain */
    assert_true(is_there(cache, "b"));
    block *c = make(cache, "c", 40);
    assert_non_null(c);
    assert_false(is_there(cache, "b"));
    assert_ptr_equal(lb_cache_get(cache, "a"), a); /* used twice */
    lb_cache_release(cache, a);
    assert_null(make(cache, "d", 1));
    lb_cache_release(cache, a);
    assert_non_null(make(cache, "d", 60));
    assert_false(is_there(cache, "a"));
    lb_cache_free(cache);
}

static void test_larger_than_the_limit_is_never_taken(void **state) {
    (void)state;
    lb_cache *cache = lb_cache_new(100);
    lb_cache_release(cache, make(cache, "a", 100));
    assert_false(lb_cache_reserve(cache, 101));
    assert_false(lb_cache_reserve(cache, SIZE_MAX));
    assert_true(is_there(cache, "a")); /* and nothing was evicted for it */
    assert_true(lb_cache_reserve(cache, 100));
    assert_false(is_there(cache, "a"));
    assert_false(lb_cache_reserve(cache, 1)); /* what is reserved counts */
    lb_cache_unreserve(cache, 100);
    assert_true(lb_cache_reserve(cache, 1));
    lb_cache_unreserve(cache, 1);
    assert_int_equal(lb_cache_bytes(cache), 0);
    lb_cache_free(cache);
    cache = lb_cache_new(0);
    assert_false(lb_cache_reserve(cache, 1));
    assert_null(lb_cache_get(cache, "a"));
    lb_cache_free(cache);
    assert_null(lb_cache_get(NULL, "a"));
}

static void test_replaced_and_dropped(void **state) {
    (void)state;
    lb_cache *cache = lb_cache_new(100);
    block *old = make(cache, "a", 40), *new = make(cache, "a", 40);
    assert_ptr_equal(lb_cache_get(cache, "a"), new);
    assert_int_equal(lb_cache_bytes(cache), 80); /* the old one is still read by somebody */
    lb_cache_release(cache, old);
    assert_int_equal(lb_cache_bytes(cache), 40);
    lb_cache_drop(cache, "a");
    assert_false(is_there(cache, "a"));
    lb_cache_release(cache, new);
    assert_int_equal(lb_cache_bytes(cache), 40);
    lb_cache_release(cache, new);
    assert_int_equal(lb_cache_bytes(cache), 0);
    lb_cache_drop(cache, "a");
    lb_cache_free(cache);
    assert_int_equal(lb_ledger_get(LB_COMPONENT_FRAMES), 0);
}

enum { LIMIT = 1000, THREADS = 4, ROUNDS = 20000 };

static void *hammer(void *user) {
    lb_cache *cache = user;
    static int seeds;
    unsigned seed = (unsigned)__atomic_add_fetch(&seeds, 1, __ATOMIC_RELAXED);
    for (int i = 0; i < ROUNDS; i++) {
        char key[8];
        snprintf(key, sizeof key, "%u", (unsigned)rand_r(&seed) % 12);
        block *b = lb_cache_get(cache, key);
        if (!b)
            b = make(cache, key, 1 + (size_t)rand_r(&seed) % 1100);
        if (b && rand_r(&seed) % 16 == 0)
            lb_cache_drop(cache, key);
        lb_cache_release(cache, b);
    }
    return NULL;
}

/* The ledger's peak, not samples: no moment is missed. */
static void test_never_above_the_limit(void **state) {
    (void)state;
    lb_ledger_phase(LB_PHASE_GENERATE); /* peaks are kept by phase, and no other test is in this one */
    lb_cache *cache = lb_cache_new(LIMIT);
    pthread_t thread[THREADS];
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, hammer, cache), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(thread[i], NULL);
    const size_t peak = lb_ledger_peak_on(0, LB_PHASE_GENERATE, LB_COMPONENT_FRAMES);
    print_message("peak %zu of %d\n", peak, LIMIT);
    assert_true(peak <= LIMIT);
    assert_true(peak > LIMIT / 2);
    assert_int_equal(lb_ledger_get(LB_COMPONENT_FRAMES), lb_cache_bytes(cache));
    lb_cache_free(cache);
    assert_int_equal(lb_ledger_get(LB_COMPONENT_FRAMES), 0);
    lb_ledger_phase(LB_PHASE_LOAD);
}

static void test_default_share_of_the_host(void **state) {
    (void)state;
    const size_t share = lb_host_default_cache();
    assert_true(share >= (size_t)256 << 20 && share <= (size_t)8 << 30);
    assert_true(lb_host_available() > 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_oldest_goes_first),
        cmocka_unit_test(test_what_is_in_use_stays),
        cmocka_unit_test(test_larger_than_the_limit_is_never_taken),
        cmocka_unit_test(test_replaced_and_dropped),
        cmocka_unit_test(test_never_above_the_limit),
        cmocka_unit_test(test_default_share_of_the_host),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
