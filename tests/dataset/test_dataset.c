/* The questions file: what is read, how it is grouped, and every fault by its whole message. */
#include "base/time.h"
#include "dataset/dataset.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#define GOOD "\"question\": \"Có gì?\", \"choices\": [\"A. Có\", \"B. Không\"], \"video_path\": \"v/1.mp4\""

typedef struct reading {
    char path[64];
    lb_dataset *dataset;
    lb_fault_list faults;
    lb_error error;
    lb_status status;
} reading;

static reading read_bytes(const char *bytes, size_t n, size_t max_questions) {
    reading r = {.path = "/tmp/lowbeam-questions-XXXXXX"};
    int fd = mkstemp(r.path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, n), (ssize_t)n);
    close(fd);
    lb_dataset_params params = {.max_questions = max_questions};
    r.status = lb_dataset_read(r.path, &params, &r.dataset, &r.faults, &r.error);
    unlink(r.path);
    return r;
}

static reading read_text(const char *text) {
    return read_bytes(text, strlen(text), 0);
}

static void done(reading *r) {
    lb_dataset_free(r->dataset);
    lb_fault_list_free(&r->faults);
}

/* The file's name in front of each message is taken off: it is random. */
static void assert_fault(const reading *r, size_t i, const char *expected) {
    if (i >= r->faults.n)
        fail_msg("%zu faults, no [%zu]: %s", r->faults.n, i, expected);
    const char *message = r->faults.fault[i].message;
    assert_int_equal(strncmp(message, r->path, strlen(r->path)), 0);
    assert_string_equal(message + strlen(r->path), expected);
}

static void assert_clean(const reading *r) {
    if (r->status != LB_STATUS_OK)
        fail_msg("%s", r->error.message);
    if (r->faults.n)
        fail_msg("%s", r->faults.fault[0].message);
}

/* One entry with this "id"; its only fault is expected. */
static void one_fault(const char *entry, const char *expected) {
    char text[4096];
    snprintf(text, sizeof text, "{\"data\": [%s]}", entry);
    reading r = read_text(text);
    assert_int_equal(r.status, LB_STATUS_OK);
    assert_fault(&r, 0, expected);
    assert_int_equal(r.faults.n, 1);
    assert_int_equal(r.faults.fault[0].index, 0);
    assert_string_equal(r.dataset->question[0].fault, r.faults.fault[0].message);
    assert_int_equal(r.dataset->n_groups, 0);
    done(&r);
}

static void format_error(const char *bytes, size_t n, const char *expected) {
    reading r = read_bytes(bytes, n, 0);
    assert_int_equal(r.status, LB_STATUS_FORMAT);
    assert_null(r.dataset);
    assert_int_equal(r.faults.n, 0);
    assert_int_equal(strncmp(r.error.message, r.path, strlen(r.path)), 0);
    if (!strstr(r.error.message, expected))
        fail_msg("\"%s\" is not in: %s", expected, r.error.message);
    done(&r);
}

static void test_read(void **state) {
    (void)state;
    reading r =
        read_text("{\"__count__\": 3, \"made\": \"today\", \"data\": ["
                  "{\"id\": \"q1\", \"question\": \"Biển gì?\", \"choices\": [\"A. Cấm\", \"B. Dừng\", \"C. Rẽ\"],"
                  " \"video_path\": \"v/1.mp4\", \"answer\": \"B\", \"support_frames\": [1.5, 3],"
                  " \"other\": {\"big\": 123456789012345678901234567890}},"
                  "{\"id\": \"q2\", " GOOD ", \"support_frames\": 4.25},"
                  "{\"id\": \"q3\", " GOOD ", \"support_frames\": []}]}\n");
    assert_clean(&r);
    lb_question *q = r.dataset->question;
    assert_int_equal(r.dataset->n_questions, 3);
    assert_string_equal(r.dataset->path, r.path);
    assert_int_equal(q[2].index, 2);
    assert_string_equal(q[0].id, "q1");
    assert_string_equal(q[0].text, "Biển gì?");
    assert_int_equal(q[0].n_choices, 3);
    assert_string_equal(q[0].choice[2], "C. Rẽ");
    assert_string_equal(q[0].video_path, "v/1.mp4");
    assert_int_equal(q[0].answer, 1);
    assert_int_equal(q[0].n_support_frames, 2);
    assert_true(q[0].support_frames[0] == 1.5 && q[0].support_frames[1] == 3.0);
    assert_int_equal(q[1].answer, -1);
    assert_true(q[1].n_support_frames == 1 && q[1].support_frames[0] == 4.25);
    assert_true(!q[2].n_support_frames && !q[2].support_frames);
    assert_null(q[0].fault);
    assert_int_equal(r.dataset->n_truths, 1);
    done(&r);
}

static void test_groups(void **state) {
    (void)state;
    const char *videos[] = {"b.mp4", "a.mp4", "b.mp4", "./a.mp4", "a.mp4", "b.mp4"};
    char text[4096] = "{\"data\": [";
    for (int i = 0; i < 6; i++)
        sprintf(text + strlen(text),
                "%s{\"id\": \"%d\", \"question\": \"?\", \"choices\": [\"x\", \"y\"], \"video_path\": \"%s\"%s}",
                i ? ", " : "", i, videos[i], i == 4 ? ", \"answer\": 1" : "");
    strcat(text, "]}");
    reading r = read_text(text);
    assert_int_equal(r.status, LB_STATUS_OK);
    assert_int_equal(r.faults.n, 1); /* question 4: in no group */
    assert_int_equal(r.dataset->n_groups, 3);
    lb_video_group *g = r.dataset->group;
    assert_string_equal(g[0].video_path, "b.mp4");
    assert_int_equal(g[0].n_questions, 3);
    assert_true(g[0].question[0] == 0 && g[0].question[1] == 2 && g[0].question[2] == 5);
    assert_string_equal(g[1].video_path, "a.mp4");
    assert_true(g[1].n_questions == 1 && g[1].question[0] == 1);
    assert_string_equal(g[2].video_path, "./a.mp4");
    done(&r);
}

static void test_each_field(void **state) {
    (void)state;
    one_fault("7", ": data[0] (without an id): found a number, an object is needed");
    one_fault("{" GOOD "}", ": data[0].id (without an id): found nothing, a string is needed");
    one_fault("{\"id\": 12, " GOOD "}", ": data[0].id (without an id): found a number, a string is needed");
    one_fault("{\"id\": \" \", " GOOD "}", ": data[0].id (without an id): an empty string");
    one_fault("{\"id\": \"q\", \"choices\": [\"a\", \"b\"], \"video_path\": \"v\"}",
              ": data[0].question (id \"q\"): found nothing, a string is needed");
    one_fault("{\"id\": \"q\", \"question\": null, \"choices\": [\"a\", \"b\"], \"video_path\": \"v\"}",
              ": data[0].question (id \"q\"): found null, a string is needed");
    one_fault("{\"id\": \"q\", \"question\": \"?\", \"choices\": [\"a\", \"b\"], \"video_path\": \"\"}",
              ": data[0].video_path (id \"q\"): an empty string");
    one_fault("{\"id\": \"q\", \"question\": \"?\", \"choices\": [\"a\", \"b\"], \"video_path\": [\"v\"]}",
              ": data[0].video_path (id \"q\"): found an array, a string is needed");
    one_fault("{\"id\": \"q\", \"question\": \"?\", \"choices\": {\"A\": \"b\"}, \"video_path\": \"v\"}",
              ": data[0].choices (id \"q\"): found an object, an array of 2 to 8 strings is needed");
    one_fault("{\"id\": \"q\", \"question\": \"?\", \"choices\": [\"a\"], \"video_path\": \"v\"}",
              ": data[0].choices (id \"q\"): found 1, 2 to 8 are needed");
    one_fault("{\"id\": \"q\", \"question\": \"?\", \"choices\": [], \"video_path\": \"v\"}",
              ": data[0].choices (id \"q\"): found 0, 2 to 8 are needed");
    one_fault(
        "{\"id\": \"q\", \"question\": \"?\", \"choices\": [\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\",\"9\"],"
        " \"video_path\": \"v\"}",
        ": data[0].choices (id \"q\"): found 9, 2 to 8 are needed");
    one_fault("{\"id\": \"q\", \"question\": \"?\", \"choices\": [\"a\", true], \"video_path\": \"v\"}",
              ": data[0].choices[1] (id \"q\"): found a boolean, a string is needed");
    one_fault("{\"id\": \"q\", \"question\": \"?\", \"choices\": [\"\", \"b\"], \"video_path\": \"v\"}",
              ": data[0].choices[0] (id \"q\"): an empty string");
    one_fault("{\"id\": \"q\", " GOOD ", \"support_frames\": \"3\"}",
              ": data[0].support_frames (id \"q\"): found a string, seconds or an array of seconds are needed");
    one_fault("{\"id\": \"q\", " GOOD ", \"support_frames\": [1, null, true]}",
              ": data[0].support_frames[1] (id \"q\"): found null, seconds are needed");
    one_fault("{\"id\": \"q\", " GOOD ", \"support_frames\": -2}",
              ": data[0].support_frames (id \"q\"): found -2, seconds from 0 up are needed");
    one_fault("{\"id\": \"a\\nb\", " GOOD ", \"answer\": \"C\"}",
              ": data[0].answer (id \"a b\"): \"C\" is none of the 2 choices, A to B");
    one_fault("{\"id\": \"q\", " GOOD ", \"answer\": 0}", ": data[0].answer (id \"q\"): found a number; give a letter "
                                                          "or the text of a choice, or leave the field out");
}

static void test_answers(void **state) {
    (void)state;
    static const struct {
        const char *choices, *answer;
        int expected;
    } cases[] = {
        {"\"A. Có\", \"B. Không\"", "A", 0},
        {"\"A. Có\", \"B. Không\"", "b", 1},
        {"\"A. Có\", \"B. Không\"", "B.", 1},
        {"\"A. Có\", \"B. Không\"", "b)", 1},
        {"\"A. Có\", \"B. Không\"", " A: ", 0},
        {"\"A. Có\", \"B. Không\"", "B. Không", 1},
        {"\"A. Có\", \"B. Không\"", "Không", 1},
        {"\"Có\", \"Không\"", "Không", 1},
        {"\"Có\", \"Không\"", "B. Không", 1},
        {"\"A) Có\", \"B) Không\"", "B. Không", 1},
        {"\"A. Có\", \"B. Không\"", "A. Không", -1}, /* the label says one, the text another */
        {"\"A. Có\", \"B. Không\"", "C", -1},
        {"\"A. Có\", \"B. Không\"", "Co", -1},
        {"\"A. Có\", \"B. Không\"", "", -1},
        {"\"A. B\", \"B. A\"", "A", 0},  /* a letter means the place */
        {"\"A. Có\", \"B. C\"", "C", 1}, /* no third choice: the text */
        {"\"Có\", \"Có\"", "Có", -1},
        {"\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\"", "H", 7},
        {"\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\"", "I", -1},
        {"\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\"", "8", 7},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[1024];
        snprintf(text, sizeof text,
                 "{\"data\": [{\"id\": \"q\", \"question\": \"?\", \"choices\": [%s], \"video_path\": \"v\", "
                 "\"answer\": \"%s\"}]}",
                 cases[i].choices, cases[i].answer);
        reading r = read_text(text);
        assert_int_equal(r.status, LB_STATUS_OK);
        if (r.dataset->question[0].answer != cases[i].expected)
            fail_msg("[%s] \"%s\": %d, %d expected", cases[i].choices, cases[i].answer, r.dataset->question[0].answer,
                     cases[i].expected);
        assert_int_equal(r.faults.n, cases[i].expected < 0);
        assert_int_equal(r.dataset->n_truths, cases[i].expected >= 0);
        done(&r);
    }
}

static void test_all_at_once(void **state) {
    (void)state;
    reading r = read_text("{\"__count__\": 5, \"data\": [{\"id\": \"q1\", " GOOD "},"
                          "{\"id\": \"q1\", \"question\": 3, \"choices\": [\"a\", 4, \"\"], \"answer\": []},"
                          "null, {\"id\": \"q1\", " GOOD "}]}");
    assert_int_equal(r.status, LB_STATUS_OK);
    assert_fault(&r, 0, ": __count__: says 5, but \"data\" has 4 entries");
    assert_int_equal(r.faults.fault[0].index, (size_t)-1);
    assert_fault(&r, 1, ": data[1].question (id \"q1\"): found a number, a string is needed");
    assert_fault(&r, 2, ": data[1].choices[1] (id \"q1\"): found a number, a string is needed");
    assert_fault(&r, 3, ": data[1].choices[2] (id \"q1\"): an empty string");
    assert_fault(&r, 4, ": data[1].video_path (id \"q1\"): found nothing, a string is needed");
    assert_fault(&r, 5,
                 ": data[1].answer (id \"q1\"): found an array; give a letter or the text of a choice, or leave "
                 "the field out");
    assert_fault(&r, 6, ": data[2] (without an id): found null, an object is needed");
    assert_fault(&r, 7, ": data[1].id (id \"q1\"): the same id as data[0]");
    assert_fault(&r, 8, ": data[3].id (id \"q1\"): the same id as data[0]");
    assert_int_equal(r.faults.n, 9);
    assert_int_equal(r.dataset->n_groups, 1);
    assert_int_equal(r.dataset->group[0].n_questions, 1);
    done(&r);
}

static void test_whole_file(void **state) {
    (void)state;
    reading r = read_text("{\"__count__\": \"1\", \"data\": []}");
    assert_int_equal(r.status, LB_STATUS_OK);
    assert_fault(&r, 0, ": __count__: found a string, a number is needed");
    assert_fault(&r, 1, ": \"data\": an empty array, no question to answer");
    done(&r);
    r = read_text("\xEF\xBB\xBF{\"data\": [{\"id\": \"q\", " GOOD "}]}"); /* a byte order mark */
    assert_clean(&r);
    done(&r);
    /* --samples: faults of the questions taken alone, the count still that of the whole file */
    const char *text = "{\"__count__\": 2, \"data\": [{\"id\": \"q\", " GOOD "}, {}]}";
    r = read_bytes(text, strlen(text), 1);
    assert_clean(&r);
    assert_int_equal(r.dataset->n_questions, 1);
    done(&r);
}

#define FORMAT_ERROR(text, expected) format_error(text, sizeof(text) - 1, expected)

static void test_not_json(void **state) {
    (void)state;
    FORMAT_ERROR("", ": line 1, column 0: ");
    FORMAT_ERROR("{\"data\": [\n  {\"id\": \"q\"", ": line 2, column 12: ");
    FORMAT_ERROR("[]", ": found an array, an object {\"data\": [...]} is needed");
    FORMAT_ERROR("\"data\"", ": line 1, column 6: ");
    FORMAT_ERROR("{}", ": \"data\": found nothing, an array of questions is needed");
    FORMAT_ERROR("{\"data\": {}}", ": \"data\": found an object, an array of questions is needed");
    FORMAT_ERROR("{\"data\": []} {}", ": line 1, column 14: end of file expected");
    FORMAT_ERROR("{\"data\": [{\"id\": \"a\",\n \"id\": \"b\"}]}", ": line 2, column 5: duplicate object key");
    FORMAT_ERROR("{\"data\": [\n\"caf\xE9\"]}", ": line 2, column 4: unable to decode byte 0xe9");
    FORMAT_ERROR("{\"data\": [\"a\\u0000b\"]}", ": line 1, column 20: a string with \\u0000 in it");
    FORMAT_ERROR("{\"data\": [\"a\0b\"]}", ": line 1, column 12: control character 0x0");
    FORMAT_ERROR("{\"data\": [\0]}", ": line 1, column ");
    FORMAT_ERROR("{\"data\": [\"\\ud800\"]}", ": line 1, column 18: invalid Unicode");
    FORMAT_ERROR("\xFF\xFE{\0}\0", ": is UTF-16; save it as UTF-8");
    char deep[20000];
    memset(deep, '[', sizeof deep);
    format_error(deep, sizeof deep, ": line 1, column 2049: maximum parsing depth");
}

static void test_not_readable(void **state) {
    (void)state;
    lb_dataset *dataset = (lb_dataset *)1;
    lb_fault_list faults = {.n = 7};
    lb_error error;
    assert_int_equal(lb_dataset_read("no/such.json", NULL, &dataset, &faults, &error), LB_STATUS_NOT_FOUND);
    assert_string_equal(error.message, "no/such.json: No such file or directory");
    assert_null(dataset);
    assert_int_equal(faults.n, 0);
    assert_int_equal(lb_dataset_read("/", NULL, &dataset, &faults, NULL), LB_STATUS_REFUSED);
    assert_int_equal(lb_dataset_read("/", NULL, &dataset, &faults, &error), LB_STATUS_REFUSED);
    assert_string_equal(error.message, "/: is a folder; name a file");
    lb_dataset_free(NULL);
    lb_fault_list_free(NULL);
}

/* Whatever the bytes: an answer or an error, never a crash (the sanitizers watch). */
static void test_damaged(void **state) {
    (void)state;
    const char *text = "{\"__count__\": 2, \"data\": [{\"id\": \"q1\", " GOOD ", \"answer\": \"A. Có\", "
                       "\"support_frames\": [1.5, 2e3]}, {\"id\": \"q\\u1ea4\", " GOOD "}]}";
    size_t n = strlen(text), refused = 0;
    char bytes[1024];
    srand(1);
    for (int i = 0; i < 3000; i++) {
        memcpy(bytes, text, n);
        for (int k = rand() % 3; k >= 0; k--)
            bytes[rand() % (int)n] = (char)(rand() % 3 ? "{}[]\",:0\\"[rand() % 9] : rand());
        reading r = read_bytes(bytes, i % 4 ? n : (size_t)rand() % n, 0);
        refused += r.status != LB_STATUS_OK;
        assert_true((r.status == LB_STATUS_OK) == (r.dataset != NULL));
        done(&r);
    }
    assert_true(refused > 1000 && refused < 3000);
}

/* 100,000 questions within a second, with ids and videos that a weak hash would put together. */
static void test_large(void **state) {
    (void)state;
    enum { N = 100000 };
    size_t room = (size_t)N * 400, used = 0;
    char *text = malloc(room);
    used += (size_t)sprintf(text, "{\"__count__\": %d, \"data\": [", N);
    for (int i = 0; i < N; i++)
        used += (size_t)sprintf(text + used,
                                "%s{\"id\": \"testa_%06d\", \"question\": \"Theo video, biển báo nào xuất hiện?\", "
                                "\"choices\": [\"A. Cấm dừng\", \"B. Cấm đỗ\", \"C. Cấm rẽ\", \"D. Tốc độ\"], "
                                "\"video_path\": \"public_test/videos/clip_%05d.mp4\"}",
                                i ? ",\n" : "", i, (i * 5) % 37037);
    used += (size_t)sprintf(text + used, "]}");
    double start = lb_now_s();
    reading r = read_bytes(text, used, 0);
    double spent = lb_now_s() - start;
    assert_clean(&r);
    assert_int_equal(r.dataset->n_questions, N);
    assert_int_equal(r.dataset->n_groups, 37037);
    print_message("%d questions, %.1f MB: %.3f s\n", N, (double)used / 1e6, spent);
    /* 0.2 s on a desktop core; the limit leaves room for sanitizers and busy machines, not for a quadratic search */
    assert_true(spent < 20.0);
    done(&r);
    free(text);
}

static void test_labels(void **state) {
    (void)state;
    assert_int_equal(lb_choice_label_bytes("A. Có", 0), 3);
    assert_int_equal(lb_choice_label_bytes("b)Có", 1), 2);
    assert_int_equal(lb_choice_label_bytes("H:  x", 7), 4);
    assert_int_equal(lb_choice_label_bytes("A. Có", 1), 0);
    assert_int_equal(lb_choice_label_bytes("A", 0), 0);
    assert_int_equal(lb_choice_label_bytes("", 0), 0);
    assert_int_equal(lb_choice_label_bytes("An toàn", 0), 0);
    assert_int_equal(lb_choice_label_bytes("I. x", 8), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_read),     cmocka_unit_test(test_groups),       cmocka_unit_test(test_each_field),
        cmocka_unit_test(test_answers),  cmocka_unit_test(test_all_at_once),  cmocka_unit_test(test_whole_file),
        cmocka_unit_test(test_not_json), cmocka_unit_test(test_not_readable), cmocka_unit_test(test_damaged),
        cmocka_unit_test(test_large),    cmocka_unit_test(test_labels),
    };
    return cmocka_run_group_tests_name("dataset", tests, NULL, NULL);
}
