/* Messages between lowbeam and its engine child: whole, broken, with and without descriptors. */
#include "run/wire.h"

#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

static int ends[2];

static int make_pair(void **state) {
    (void)state;
    return socketpair(AF_UNIX, SOCK_STREAM, 0, ends);
}

static int close_pair(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++)
        if (ends[i] >= 0)
            close(ends[i]);
    return 0;
}

static void close_end(int i) {
    close(ends[i]);
    ends[i] = -1;
}

static json_t *receive(lb_wire_fds *passed) {
    json_t *message;
    lb_error error = {0};
    if (lb_wire_receive(ends[1], &message, passed, &error) != LB_STATUS_OK)
        fail_msg("%s", error.message);
    return message;
}

static void expect_failure(lb_status expected) {
    json_t *message = (json_t *)1;
    lb_wire_fds passed = {.n = 77};
    lb_error error = {0};
    lb_status status = lb_wire_receive(ends[1], &message, &passed, &error);
    if (status != expected)
        fail_msg("%s, expected %s: %s", lb_status_name(status), lb_status_name(expected), error.message);
    assert_null(message);
    assert_int_equal(passed.n, 0);
}

static void test_messages_come_whole_and_in_order(void **state) {
    (void)state;
    for (int i = 0; i < 3; i++)
        assert_int_equal(lb_wire_send(ends[0], json_pack("{s:s, s:i}", "type", "đ\n", "n", i), NULL, NULL),
                         LB_STATUS_OK);
    for (int i = 0; i < 3; i++) {
        lb_wire_fds passed;
        assert_true(lb_wire_pending(ends[1]));
        json_t *message = receive(&passed);
        assert_string_equal(lb_wire_type(message), "đ\n");
        assert_int_equal(json_integer_value(json_object_get(message, "n")), i);
        assert_int_equal(passed.n, 0);
        json_decref(message);
    }
    assert_false(lb_wire_pending(ends[1]));
    json_t *no_type = json_pack("{s:i}", "type", 3);
    assert_string_equal(lb_wire_type(no_type), "");
    json_decref(no_type);
}

static void test_descriptors_go_along(void **state) {
    (void)state;
    int file[2];
    assert_int_equal(pipe(file), 0);
    for (int n = 1; n <= LB_WIRE_FDS_MAX; n++) {
        lb_wire_fds sent = {.n = n}, passed;
        for (int i = 0; i < n; i++)
            sent.fd[i] = file[i % 2]; /* the reading end, the writing end, ... */
        assert_int_equal(lb_wire_send(ends[0], json_pack("{s:s}", "type", "video"), &sent, NULL), LB_STATUS_OK);
        assert_int_equal(lb_wire_send(ends[0], json_pack("{s:s}", "type", "stop"), NULL, NULL), LB_STATUS_OK);
        json_decref(receive(&passed));
        assert_int_equal(passed.n, n);
        for (int i = 0; i < n; i++) {
            assert_true(passed.fd[i] >= 0 && passed.fd[i] != file[i % 2]);
            assert_true(fcntl(passed.fd[i], F_GETFD) & FD_CLOEXEC);
        }
        char byte = 0;
        assert_int_equal(write(n > 1 ? passed.fd[1] : file[1], "x", 1), 1);
        assert_int_equal(read(passed.fd[0], &byte, 1), 1);
        assert_int_equal(byte, 'x');
        const int first = passed.fd[0];
        lb_wire_fds_close(&passed);
        assert_int_equal(passed.n, 0);
        assert_int_equal(fcntl(first, F_GETFD), -1);
        json_decref(receive(&passed));
        assert_int_equal(passed.n, 0);
    }
    close(file[0]);
    close(file[1]);
}

static void *send_large(void *user) {
    lb_wire_send(ends[0], json_pack("{s:s, s:o}", "type", "large", "text", user), NULL, NULL);
    return NULL;
}

static void test_message_larger_than_the_sockets_buffer(void **state) {
    (void)state;
    enum { N = 5 << 20 };
    char *text = malloc(N);
    assert_non_null(text);
    memset(text, 'x', N);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, send_large, json_stringn(text, N)), 0);
    lb_wire_fds passed;
    json_t *message = receive(&passed);
    pthread_join(thread, NULL);
    assert_int_equal(json_string_length(json_object_get(message, "text")), N);
    json_decref(message);
    free(text);
}

static void test_closed_ends(void **state) {
    (void)state;
    close_end(0);
    expect_failure(LB_STATUS_CHILD_DIED);
    assert_int_equal(lb_wire_send(ends[1], json_pack("{s:s}", "type", "x"), NULL, NULL), LB_STATUS_CHILD_DIED);
    assert_true(lb_wire_pending(ends[1])); /* its end is something to receive */
}

static void send_raw(uint32_t claimed, const char *text, size_t n) {
    assert_int_equal(write(ends[0], &claimed, sizeof claimed), sizeof claimed);
    assert_int_equal(write(ends[0], text, n), (ssize_t)n);
}

static void test_end_in_the_middle(void **state) {
    (void)state;
    send_raw(100, "{\"type\":", 8);
    close_end(0);
    expect_failure(LB_STATUS_CHILD_DIED);
}

static void test_end_within_the_length(void **state) {
    (void)state;
    assert_int_equal(write(ends[0], "\x10\0", 2), 2);
    close_end(0);
    expect_failure(LB_STATUS_CHILD_DIED);
}

static void test_malformed_messages(void **state) {
    (void)state;
    static const char *const wrong[] = {"", "{", "[1]", "\"x\"", "{\"a\":1} x", "{\"a\":\"\xff\"}"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        send_raw((uint32_t)strlen(wrong[i]), wrong[i], strlen(wrong[i]));
        expect_failure(LB_STATUS_FORMAT);
    }
    send_raw(UINT32_MAX, "", 0);
    expect_failure(LB_STATUS_FORMAT);
}

static void test_descriptor_of_a_malformed_message_is_closed(void **state) {
    (void)state;
    int before = dup(0), after;
    close(before);
    json_t *array = json_pack("[i]", 1);
    assert_int_equal(lb_wire_send(ends[0], array, &(lb_wire_fds){1, {0}}, NULL), LB_STATUS_OK);
    expect_failure(LB_STATUS_FORMAT);
    after = dup(0);
    close(after);
    assert_int_equal(after, before); /* the lowest free number is what it was */
}

static void test_message_that_cannot_be_written(void **state) {
    (void)state;
    lb_error error = {0};
    assert_int_equal(lb_wire_send(ends[0], NULL, NULL, &error), LB_STATUS_INTERNAL);
    assert_int_equal(lb_wire_send(ends[0], json_pack("{s:s}", "type", "\xff"), NULL, &error), LB_STATUS_INTERNAL);
    assert_false(lb_wire_pending(ends[1])); /* nothing half sent */
}

static void on_alarm(int number) {
    (void)number;
}

static void test_signal_while_waiting(void **state) {
    (void)state;
    struct sigaction action = {.sa_handler = on_alarm}, before;
    sigaction(SIGALRM, &action, &before);
    alarm(1);
    expect_failure(LB_STATUS_INTERRUPTED);
    sigaction(SIGALRM, &before, NULL);
}

static void test_bytes_that_are_no_utf8(void **state) {
    (void)state;
    char all[256];
    for (int i = 0; i < 255; i++)
        all[i] = (char)(i + 1);
    all[255] = 0;
    const char *const texts[] = {all, "", "/tmp/đường.gguf", "\xff\xfe", "plain"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        assert_int_equal(lb_wire_send(ends[0], json_pack("{s:o}", "path", lb_wire_bytes(texts[i])), NULL, NULL),
                         LB_STATUS_OK);
        lb_wire_fds passed;
        json_t *message = receive(&passed);
        char *back = lb_wire_bytes_get(json_object_get(message, "path"));
        assert_string_equal(back, texts[i]);
        free(back);
        json_decref(message);
    }
    json_t *null = lb_wire_bytes(NULL);
    assert_true(json_is_null(null));
    assert_null(lb_wire_bytes_get(null));
    assert_null(lb_wire_bytes_get(NULL));
    json_decref(null);
}

static void test_sizes(void **state) {
    (void)state;
    const size_t sizes[] = {0, 1, (size_t)1 << 40};
    size_t back[3] = {7, 7, 7};
    json_t *list = lb_wire_sizes(sizes, 3);
    assert_int_equal(lb_wire_sizes_get(list, back, 2), 2); /* no more than there is room for */
    assert_int_equal(back[2], 7);
    assert_int_equal(lb_wire_sizes_get(list, back, 3), 3);
    assert_memory_equal(back, sizes, sizeof sizes);
    json_decref(list);
    list = lb_wire_sizes(sizes, 0);
    assert_int_equal(lb_wire_sizes_get(list, back, 3), 0);
    json_decref(list);
    assert_int_equal(lb_wire_sizes_get(NULL, back, 3), 0);
}

int main(void) {
#define PAIRED(test) cmocka_unit_test_setup_teardown(test, make_pair, close_pair)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sizes),
        PAIRED(test_messages_come_whole_and_in_order),
        PAIRED(test_descriptors_go_along),
        PAIRED(test_message_larger_than_the_sockets_buffer),
        PAIRED(test_closed_ends),
        PAIRED(test_end_in_the_middle),
        PAIRED(test_end_within_the_length),
        PAIRED(test_malformed_messages),
        PAIRED(test_descriptor_of_a_malformed_message_is_closed),
        PAIRED(test_message_that_cannot_be_written),
        PAIRED(test_signal_while_waiting),
        PAIRED(test_bytes_that_are_no_utf8),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
