/* libllama's buffer sizes read back from its log, which comes in pieces; the lines are those of a real run. */
#include "vlm/llama_log.h"

#include "nn/log.h"

#include <ggml.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

static void say(const char *text) {
    lb_nn_route_log(GGML_LOG_LEVEL_INFO, text, NULL);
}

static void say_all(void) {
    say("load_tensors:        CUDA0 model buffer size = 13486.75 MiB\n");
    say("load_tensors:   CPU_Mapped model buffer size =  1038.38 MiB\n");
    say("llama_kv_cache:      CUDA0 KV buffer size =  1288.00 MiB\n");
    say("sched_reserve:      CUDA0 compute buffer");
    lb_nn_route_log(GGML_LOG_LEVEL_CONT, " size =   304.50 MiB\n", NULL);
    say("sched_reserve:  CUDA_Host compute buffer size =    23.01 MiB\n");
    say("sched_reserve:      CUDA1 compute buffer size =     7.00 MiB\n");
    say("a line: with a colon and no size\n: model buffer size\n");
}

static const size_t mib = 1 << 20;

static void test_sizes_by_device(void **state) {
    (void)state;
    const char *const names[] = {"CUDA0", "CUDA1"};
    lb_llama_sizes sizes[3];
    lb_llama_sizes_begin(names, 2);
    say_all();
    lb_llama_sizes_end(sizes);
    assert_int_equal(sizes[0].weights, 13486 * mib + mib * 3 / 4);
    assert_int_equal(sizes[0].kv, 1288 * mib);
    assert_int_equal(sizes[0].compute, 304 * mib + mib / 2);
    assert_int_equal(sizes[1].compute, 7 * mib);
    assert_true(sizes[1].weights == 0 && sizes[1].kv == 0);
    assert_int_equal(sizes[2].weights, (size_t)(1038.38 * 1048576.0));
    assert_int_equal(sizes[2].compute, (size_t)(23.01 * 1048576.0));
    say_all(); /* nobody reads now */
    const char *const cpu[] = {"CPU"};
    lb_llama_sizes none[2];
    lb_llama_sizes_begin(cpu, 1);
    lb_llama_sizes_end(none);
    assert_true(none[0].weights == 0 && none[0].kv == 0 && none[0].compute == 0);
}

static void test_cpu_counts_its_mapped_weights(void **state) {
    (void)state;
    const char *const cpu[] = {"CPU"};
    lb_llama_sizes sizes[2];
    lb_llama_sizes_begin(cpu, 1);
    say("load_tensors:   CPU_Mapped model buffer size =    79.75 MiB\n");
    say("llama_kv_cache:        CPU KV buffer size =     0.50 MiB\n");
    say("llama_kv_cache:        CPU KV buffer size =     0.50 MiB\n");
    lb_llama_sizes_end(sizes);
    assert_int_equal(sizes[0].weights, 79 * mib + mib * 3 / 4);
    assert_int_equal(sizes[0].kv, mib);
}

static void test_last_two_errors_are_told_once(void **state) {
    (void)state;
    lb_nn_route_log(GGML_LOG_LEVEL_ERROR, "too early\n", NULL);
    lb_nn_route_log(GGML_LOG_LEVEL_ERROR, "first\n", NULL);
    lb_nn_route_log(GGML_LOG_LEVEL_ERROR, "sec", NULL);
    lb_nn_route_log(GGML_LOG_LEVEL_CONT, "ond  \n", NULL);
    lb_nn_route_log(GGML_LOG_LEVEL_INFO, "no error\n", NULL);
    assert_string_equal(lb_nn_last_log_error(), "first; second");
    assert_string_equal(lb_nn_last_log_error(), "");
}

static void test_lines_without_end(void **state) {
    (void)state;
    char piece[301];
    memset(piece, 'x', 300);
    piece[300] = 0;
    for (int i = 0; i < 20; i++)
        lb_nn_route_log(GGML_LOG_LEVEL_ERROR, piece, NULL);
    lb_nn_route_log(GGML_LOG_LEVEL_ERROR, "\n", NULL);
    assert_int_equal(lb_nn_last_log_error()[0], 'x');
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sizes_by_device),
        cmocka_unit_test(test_cpu_counts_its_mapped_weights),
        cmocka_unit_test(test_last_two_errors_are_told_once),
        cmocka_unit_test(test_lines_without_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
