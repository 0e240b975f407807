/* Each call of lowbeam's own that can fail, made to fail in turn: inject_faults SCENARIO OPTIONS
 *
 *     open     plan and engine, from nothing to ready and back
 *     ask      an engine that stays, asked about one video and another
 *     run      lb_run_answer with its journal and CSV; then --resume, which must mend everything
 *
 * After a fault the ledger must be at its base, no descriptor more be open, and what was asked be answered rightly or
 * have failed with a reason; then the same is done without a fault and must be right. Leaks are LeakSanitizer's to
 * tell, when the program ends. Prints the counts; exit status 1 when something was not so. */
#include "base/time.h"
#include "faults.h"
#include "memory/ledger.h"
#include "run/clip.h"
#include "run/engine.h"
#include "run/run.h"
#include "run/settings.h"
#include "vlm/tokenizer.h"

#include <dirent.h>
#include <getopt.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { N_VIDEOS = 2, N_QUESTIONS = 2, N_FRAMES = 2, N_NEW = 3, RUN_MAX = 16 };

static const char *model, *mmproj, *detector, *video[N_VIDEOS], *questions_path, *videos_folder, *program, *folder;
static bool rest;
static double seconds_most; /* 0: every fault */

static const char *const choices[] = {"A. một", "B. hai", "C. ba", "D. bốn"};
static const lb_engine_question question[N_QUESTIONS] = {
    {.id = "p", .text = "Có gì trên đường?", .choices = choices, .n_choices = 4, .wanted = true},
    {.id = "q", .text = "Xe nào đi trước, bên trái hay bên phải?", .choices = choices, .n_choices = 3, .wanted = true}};

/* What came of a pass. */
typedef struct outcome {
    lb_status status;          /* of the whole; else of each: */
    char answer[RUN_MAX][256]; /* what was said; "" when it failed */
    int n, n_failed;
    char reason[2048]; /* of a failure */
    const char *wrong; /* what must not be: a failure without a reason, say */
} outcome;

static void note_failure(outcome *o, lb_status status, const char *message) {
    o->status = status;
    if (!message || !*message)
        o->wrong = "a failure without a reason";
    else
        snprintf(o->reason, sizeof o->reason, "%s", message);
}

static void note_error(outcome *o, lb_status status, const lb_error *error) {
    if (status == LB_STATUS_OK)
        return;
    note_failure(o, status, error->message);
    if (error->status != status)
        o->wrong = "a status that is not the error's";
}

static void take_reply(const lb_engine_reply *r, void *user) {
    outcome *o = user;
    if (r->question < 0 || r->question >= N_QUESTIONS || o->answer[r->question][0])
        o->wrong = "a reply to no question, or a second one";
    else if (r->status == LB_STATUS_OK)
        snprintf(o->answer[r->question], sizeof o->answer[0], "%c %s", 'A' + r->letter, r->text);
    else if (!r->message || !*r->message || !r->fallback)
        o->wrong = "a failed question without a reason or not marked";
    else {
        snprintf(o->reason, sizeof o->reason, "%s", r->message);
        o->n_failed++;
    }
    o->n++;
}

/* Scenario open, ask */

static lb_engine *engine;

static lb_engine_params engine_params(const lb_engine_work *work) {
    lb_engine_params p = lb_engine_default_params();
    p.vlm.model_path = model;
    p.vlm.mmproj_path = mmproj;
    p.vlm.device = "cpu";
    p.vlm.n_threads = 1;
    p.detector_path = detector;
    p.max_new_tokens = N_NEW;
    p.work = work;
    return p;
}

static void open_engine(outcome *o) {
    const lb_engine_work work = {
        .n_frames = N_FRAMES, .tiles_per_frame = 1, .longest = question, .n_longest = N_QUESTIONS};
    lb_engine_params params = engine_params(&work);
    lb_error error = {0};
    static lb_plan plan;
    lb_status status = lb_engine_plan(&params, &plan, &error);
    if (rest)
        plan.choice.rest_compute = plan.choice.rest_context = plan.choice.rest_weights = true;
    if (status == LB_STATUS_OK)
        status = lb_engine_open(&params, &plan, &engine, &error);
    else
        lb_tokenizer_free(params.tokenizer);
    note_error(o, status, &error);
}

static void close_engine(void) {
    lb_engine_free(engine);
    engine = NULL;
}

static void open_and_close(outcome *o, int turn) {
    (void)turn;
    open_engine(o);
    close_engine();
}

static void ask(outcome *o, int turn) {
    lb_clip_params params = {.frames = lb_frames_default_params(),
                             .max_tiles = 1,
                             .tile_size = lb_vlm_get_info(lb_engine_vlm(engine))->image_size};
    params.frames.n_frames = N_FRAMES;
    const lb_preprocess_params *edges = lb_engine_preprocess(engine);
    if (edges) {
        params.shortest_edge = edges->shortest_edge;
        params.longest_edge = edges->longest_edge;
    }
    lb_error error = {0};
    lb_clip *clip = NULL;
    note_error(o, lb_clip_prepare(video[turn % N_VIDEOS], &params, &clip, &error), &error);
    if (!clip)
        return;
    const lb_frames *f = clip->frames;
    const lb_engine_clip seen = {.n_frames = f->n_frames,
                                 .tiles_per_frame = clip->tiles_per_frame,
                                 .tiles = clip->tiles,
                                 .frames = f->data,
                                 .width = f->width,
                                 .height = f->height,
                                 .resized = clip->resized,
                                 .index = f->index,
                                 .time_s = f->time_s};
    lb_engine_answer(engine, &seen, question, N_QUESTIONS, (lb_engine_callbacks){.reply = take_reply, .user = o});
    if (o->n != N_QUESTIONS)
        o->wrong = "a question without a reply";
    lb_clip_free(clip);
}

/* Scenario run */

static void answered(size_t n_done, size_t n_all, const lb_journal_record *record, const char *next_video,
                     const lb_child_state *state, double seconds, void *user) {
    (void)n_done, (void)n_all, (void)next_video, (void)state, (void)seconds;
    outcome *o = user;
    if (record->index < 0 || record->index >= RUN_MAX) {
        o->wrong = "an answer to no question";
    } else if (!record->error) {
        snprintf(o->answer[record->index], sizeof o->answer[0], "%c %s", 'A' + record->letter, record->text);
    } else {
        if (!record->fallback || !*record->error)
            o->wrong = "a failed question without a reason or not marked";
        snprintf(o->reason, sizeof o->reason, "%s", record->error);
        o->n_failed++;
    }
    o->n++;
}

static void run_once(outcome *o, bool resume) {
    char out[4096];
    snprintf(out, sizeof out, "%s/out.csv", folder);
    lb_run_params p = lb_run_default_params();
    p.questions_path = questions_path;
    p.videos = videos_folder;
    p.out = out;
    p.resume = resume;
    p.planned = true;
    p.clip.frames.n_frames = N_FRAMES;
    p.child.program = program;
    p.child.engine = engine_params(NULL);
    const lb_run_observer observer = {.answered = answered, .user = o};
    lb_error error = {0};
    lb_run_result result;
    note_error(o, lb_run_answer(&p, &observer, &result, &error), &error);
}

static void clean_run(void) {
    static const char *const ends[] = {"csv", "db", "db-wal", "db-shm", "db-journal"};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        char path[4096];
        snprintf(path, sizeof path, "%s/out.%s", folder, ends[i]);
        unlink(path);
    }
}

static void run_new(outcome *o, int turn) {
    (void)turn;
    clean_run();
    run_once(o, false);
}

static void run_resumed(outcome *o, int turn) {
    (void)turn;
    run_once(o, true);
}

/* The test */

static const struct scenario {
    const char *name;
    void (*open)(outcome *o); /* before all passes; NULL */
    void (*pass)(outcome *o, int turn);
    void (*mend)(outcome *o, int turn); /* what must be right after a fault; NULL: pass */
    void (*close)(void);
} scenarios[] = {{"open", NULL, open_and_close, NULL, NULL},
                 {"ask", open_engine, ask, NULL, close_engine},
                 {"run", NULL, run_new, run_resumed, clean_run}};

typedef struct holding {
    size_t bytes[LB_COMPONENT_COUNT];
    int n_fds, n_memfds;
} holding;

static holding holds(void) {
    holding h = {0};
    for (int c = 0; c < LB_COMPONENT_COUNT; c++)
        h.bytes[c] = lb_ledger_get((lb_component)c);
    DIR *dir = opendir("/proc/self/fd");
    while (dir && readdir(dir))
        h.n_fds++;
    if (dir)
        closedir(dir);
    FILE *maps = fopen("/proc/self/maps", "r");
    char line[1024];
    while (maps && fgets(line, sizeof line, maps))
        h.n_memfds += strstr(line, "/memfd:lowbeam") != NULL;
    if (maps)
        fclose(maps);
    return h;
}

static size_t n_bad;
static size_t fault_place, fault_k;
static bool fault_onward;

static void complain(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void complain(const char *format, ...) {
    if (n_bad++ == 20)
        puts("(and more)");
    if (n_bad > 20)
        return;
    printf("%s, call %zu at %p%s: ", faults_name(fault_place), fault_k, faults_address(fault_place),
           fault_onward ? " and all after it" : "");
    va_list args;
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    putchar('\n');
}

static void last_words(int number) {
    char text[256];
    int n = snprintf(text, sizeof text, "crashed (%d) after %s, call %zu at %p%s failed\n", number,
                     faults_name(fault_place), fault_k, faults_address(fault_place),
                     fault_onward ? " and all after it" : "");
    if (write(STDERR_FILENO, text, (size_t)n) < 0 || number == 0)
        return;
    signal(number, SIG_DFL);
    raise(number);
}

static void sanitizer_died(void) {
    last_words(0);
}

extern void __sanitizer_set_death_callback(void (*callback)(void)) __attribute__((weak));

/* Nothing more is held than before; exact: nothing less, either. */
static bool is_at(const holding *base, bool exact, const char *when) {
    const holding now = holds();
    bool good = true;
    for (int c = 0; c < LB_COMPONENT_COUNT; c++)
        if (now.bytes[c] > base->bytes[c] || (exact && now.bytes[c] != base->bytes[c])) {
            complain("%s: the ledger has %zu bytes of %s, %zu before", when, now.bytes[c],
                     lb_component_text((lb_component)c), base->bytes[c]);
            good = false;
        }
    if (now.n_fds != base->n_fds || now.n_memfds != base->n_memfds) {
        complain("%s: %d descriptors and %d shared mappings, %d and %d before", when, now.n_fds, now.n_memfds,
                 base->n_fds, base->n_memfds);
        good = false;
    }
    return good;
}

typedef struct fault {
    size_t place, k;
    bool onward;
} fault;

/* Each place's first and last call, then the others; each of the first also with all calls after it. */
static fault *list_faults(size_t n_places, size_t *n) {
    size_t all = 0;
    for (size_t i = 0; i < n_places; i++)
        all += faults_calls(i);
    fault *list = calloc(all * 2 + 1, sizeof *list);
    *n = 0;
    for (size_t i = 0; list && i < n_places; i++)
        list[(*n)++] = (fault){i, 0, false};
    for (size_t i = 0; list && i < n_places; i++)
        list[(*n)++] = (fault){i, 0, true};
    for (size_t i = 0; list && i < n_places; i++)
        for (size_t k = 1; k < faults_calls(i); k++)
            list[(*n)++] = (fault){i, k, false};
    return list;
}

static int test(const struct scenario *s) {
    const double start = lb_now_s();
    const holding nothing = holds();
    outcome opened = {0};
    if (s->open)
        s->open(&opened);
    if (opened.status != LB_STATUS_OK) {
        printf("%s: %s\n", s->name, opened.reason);
        return 1;
    }
    static outcome right[2 * N_VIDEOS * 3]; /* by turn: the videos take turns, and so does what is kept */
    const int n_turns = (int)(sizeof right / sizeof *right);
    const double before = lb_now_s();
    const bool alike = strcmp(s->name, "open") == 0 || strcmp(s->name, "run") == 0;
    for (int turn = 0; turn < (alike ? 1 : n_turns); turn++)
        s->pass(&right[turn], turn);
    const double pass_s = (lb_now_s() - before) / (alike ? 1 : n_turns);
    if (right[0].wrong || right[0].n_failed || right[0].status != LB_STATUS_OK) {
        printf("%s: without a fault: %s %s\n", s->name, right[0].wrong ? right[0].wrong : "", right[0].reason);
        return 1;
    }
    faults_record();
    outcome recorded = {0};
    s->pass(&recorded, 1);
    size_t n_list, n_calls = 0;
    const size_t n_places = faults_stop();
    for (size_t i = 0; i < n_places; i++)
        n_calls += faults_calls(i);
    fault *list = list_faults(n_places, &n_list);
    const holding base = holds();
    size_t n_done = 0, n_hit = 0, n_told = 0, n_unharmed = 0, n_at_base = 0, n_mended = 0;
    /* each costs two passes */
    const double affordable =
        seconds_most > 0 ? (seconds_most - (lb_now_s() - start)) / (2.2 * pass_s) : (double)n_list;
    const size_t n_wanted = affordable >= (double)n_list ? n_list : affordable < 10 ? 10 : (size_t)affordable;
    for (size_t at = 0; list && n_done < n_wanted; n_done++) {
        /* evenly over the list when not all are taken */
        at = n_wanted == n_list ? n_done : n_done * n_list / n_wanted;
        fault_place = list[at].place;
        fault_k = list[at].k;
        fault_onward = list[at].onward;
        static outcome o, mended;
        o = mended = (outcome){0};
        const int turn = 1;
        faults_arm(fault_place, fault_k, fault_onward);
        s->pass(&o, turn);
        faults_stop();
        n_hit += faults_hit();
        const outcome *good = alike ? &right[0] : &right[turn];
        bool same = true;
        for (int i = 0; i < RUN_MAX; i++)
            same = same && (!o.answer[i][0] || strcmp(o.answer[i], good->answer[i]) == 0);
        if (o.wrong)
            complain("%s (%s)", o.wrong, o.reason);
        else if (!same)
            complain("a wrong answer");
        else if (o.status != LB_STATUS_OK || o.n_failed)
            n_told++;
        else
            n_unharmed++;
        const bool after_fault = is_at(&base, false, "after it");
        (s->mend ? s->mend : s->pass)(&mended, turn);
        same = true;
        for (int i = 0; i < RUN_MAX; i++)
            same = same && (strcmp(mended.answer[i], good->answer[i]) == 0 || (s->mend && !mended.answer[i][0]));
        if (mended.wrong || mended.n_failed || mended.status != LB_STATUS_OK || !same)
            complain("(%s) then without a fault: %s %s", o.reason, mended.wrong ? mended.wrong : "not as before",
                     mended.reason);
        else
            n_mended++;
        n_at_base += is_at(&base, true, "after the next one") && after_fault;
        if (getenv("LOWBEAM_FAULTS_LOG"))
            printf("# %s %zu at %p%s: %s\n", faults_name(fault_place), fault_k, faults_address(fault_place),
                   fault_onward ? " on" : "", o.reason);
    }
    free(list);
    if (s->close)
        s->close();
    is_at(&nothing, true, "when everything is closed");
    printf("%s%s%s: %zu calls at %zu places; of %zu faults %zu were made (%zu came to pass): %zu failed with a reason, "
           "%zu went on "
           "unharmed, 0 crashes, ledger at its base %zu times, right again %zu times (%.0f s)\n",
           s->name, detector ? " with the detector" : "", rest ? ", all that can rest rests" : "", n_calls, n_places,
           n_list, n_done, n_hit, n_told, n_unharmed, n_at_base, n_mended, lb_now_s() - start);
    return n_bad > 0 || n_done == 0;
}

int main(int argc, char **argv) {
    static const struct option names[] = {{"model", 1, NULL, 'm'},
                                          {"mmproj", 1, NULL, 'p'},
                                          {"detector", 1, NULL, 'd'},
                                          {"video", 1, NULL, 'v'},
                                          {"questions", 1, NULL, 'q'},
                                          {"videos", 1, NULL, 'V'},
                                          {"program", 1, NULL, 'P'},
                                          {"folder", 1, NULL, 'f'},
                                          {"seconds", 1, NULL, 'n'},
                                          {"rest", 0, NULL, 'r'},
                                          {0}};
    int n_videos = 0;
    for (int c; (c = getopt_long(argc, argv, "", names, NULL)) != -1;) {
        if (c == 'v') {
            video[n_videos++ % N_VIDEOS] = optarg; /* the last ones count */
            continue;
        }
        if (c == 'n')
            seconds_most = strtod(optarg, NULL);
        else if (c == 'r')
            rest = true;
        else if (c == '?')
            return 2;
        else
            *(c == 'm'   ? &model
              : c == 'p' ? &mmproj
              : c == 'd' ? &detector
              : c == 'q' ? &questions_path
              : c == 'V' ? &videos_folder
              : c == 'P' ? &program
                         : &folder) = optarg;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    signal(SIGPIPE, SIG_IGN);
    if (__sanitizer_set_death_callback) {
        __sanitizer_set_death_callback(sanitizer_died);
    } else {
        signal(SIGSEGV, last_words);
        signal(SIGABRT, last_words);
        signal(SIGBUS, last_words);
    }
    for (size_t i = 0; i < sizeof scenarios / sizeof *scenarios && optind < argc; i++)
        if (strcmp(scenarios[i].name, argv[optind]) == 0)
            return test(&scenarios[i]);
    fputs("inject_faults: which scenario?\n", stderr);
    return 2;
}
