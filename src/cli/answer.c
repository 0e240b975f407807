#include "base/error.h"
#include "cli/cli.h"
#include "cli/models.h"
#include "cli/options.h"
#include "cli/progress.h"
#include "image/tiles.h"
#include "run/output.h"
#include "run/run.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char plan_usage[] =
    "lowbeam plan QUESTIONS.json [the options of lowbeam answer] [--json]\n"
    "\n"
    "What lowbeam answer with the same options would hold on each device, by part and by phase, and what it\n"
    "would do to stay within --vram. Reads headers only and loads no weight; a few seconds. Exit status 4,\n"
    "with the smallest budget that would do, when it does not fit.\n";

static const char answer_usage[] =
    "lowbeam answer QUESTIONS.json [options]\n"
    "\n"
    "Answers every question of the file and writes submission_<model>_<time>.csv (id, answer, raw_response,\n"
    "prompt), with a journal (.db) beside it that holds each answer as soon as it is there.\n"
    "\n"
    "QUESTIONS.json: {\"data\": [{\"id\": \"q1\", \"question\": \"...\", \"choices\": [\"A. ...\", \"B. ...\"],\n"
    "                          \"video_path\": \"clips/a.mp4\"}]}\n"
    "Faults of the file are all listed before anything runs. A video that cannot be read gives answer A, with\n"
    "the error as raw_response; the run goes on. A run that was stopped goes on with --resume.\n"
    "With a detector (Grounding DINO) each prompt also names what it found in each frame, and the first boxes of\n"
    "each frame are shown to the model as further tiles.\n";

static const char answer_example[] =
    "four frames a video, ten questions, on the GPU\n"
    "  lowbeam answer questions.json --videos clips --model InternVL3-8B.gguf --num-frames 4 --samples 10\n";

static void print_result(const lb_run_result *r, const char *cache_dir, double deadline_s) {
    printf("Total videos cached: %zu\n", r->n_videos);
    if (r->n_engines > 1)
        printf("Engines: %zu side by side\n", r->n_engines);
    const size_t n_now = r->n_answered - r->n_resumed; /* the seconds are those of this process */
    printf("%zu of %zu questions answered in %.1f s (%.2f s each), %zu by fallback\n", r->n_answered, r->n_questions,
           r->seconds, n_now ? r->seconds / (double)n_now : 0.0, r->n_fallback);
    if (deadline_s > 0)
        printf("Deadline %g s: %zu of %zu in time, the slowest took %.2f s; %zu from less than all frames, crops or "
               "text\n",
               deadline_s, r->n_in_time, n_now, r->slowest_s, r->n_hurried);
    if (cache_dir)
        printf("cache: %zu of %zu videos from %s\n", r->n_cached, r->n_videos, cache_dir);
    if (r->n_empty > 0)
        printf("%zu boxes without area were left out\n", r->n_empty);
    printf("CSV: %s\n", r->csv_path);
    if (r->n_truths > 0)
        printf("Accuracy: %zu/%zu (%.1f %%)\n", r->n_right, r->n_truths,
               100.0 * (double)r->n_right / (double)r->n_truths);
}

static lb_status read_engines(const char *text, int *n, lb_error *error) {
    char *end;
    const long value = strtol(text, &end, 10);
    *n = 0;
    if (strcmp(text, "auto") == 0)
        return LB_STATUS_OK;
    if (end == text || *end || value < 1 || value > LB_DEVICES_MAX)
        return lb_error_set(error, LB_STATUS_INVALID_ARGUMENT,
                            "--engines %s: takes auto or a whole number from 1 to %d", text, LB_DEVICES_MAX);
    *n = (int)value;
    return LB_STATUS_OK;
}

typedef struct memory_options {
    const char *vram, *ram, *cache, *cache_dir_limit, *allow;
    bool load_in_8bit;
} memory_options;

static lb_status read_memory_options(const memory_options *o, lb_engine_params *e, lb_error *error) {
    lb_status status = o->vram ? lb_plan_vram_parse(o->vram, e->vram, &e->n_vram, error) : LB_STATUS_OK;
    if (status == LB_STATUS_OK && o->ram)
        status = lb_bytes_parse("--ram", o->ram, &e->ram_bytes, error);
    if (status == LB_STATUS_OK && o->cache)
        status = lb_bytes_parse("--cache", o->cache, &e->cache_bytes, error);
    if (status == LB_STATUS_OK && ((o->ram && e->ram_bytes == 0) || (o->cache && e->cache_bytes == 0)))
        status = lb_error_set(error, LB_STATUS_INVALID_ARGUMENT,
                              "%s: takes a size above 0; at least one video's frames must have room",
                              o->cache && e->cache_bytes == 0 ? "--cache" : "--ram");
    if (status == LB_STATUS_OK && o->allow)
        status = lb_plan_allow_parse(o->allow, &e->allow, error);
    if (o->load_in_8bit) {
        e->allow |= LB_ALLOW_WEIGHTS_Q8;
        e->weight_bits = 8;
    }
    if (status == LB_STATUS_OK && e->weight_bits != 0 && e->weight_bits != 4 && e->weight_bits != 8)
        status = lb_error_set(error, LB_STATUS_INVALID_ARGUMENT, "--weight-bits %d: takes 0, 8 or 4", e->weight_bits);
    if (status == LB_STATUS_OK && e->kv_bits != 0 && e->kv_bits != 8)
        status = lb_error_set(error, LB_STATUS_INVALID_ARGUMENT, "--kv-bits %d: takes 0 or 8", e->kv_bits);
    if (status == LB_STATUS_OK && (e->kv_bits == 8 || (e->allow & LB_ALLOW_KV_Q8)) && e->vlm.exact)
        status = lb_error_set(error, LB_STATUS_INVALID_ARGUMENT, "%s: --exact takes an f32 KV cache",
                              e->kv_bits == 8 ? "--kv-bits 8" : "--allow kv-q8");
    return status;
}

/* Makes the plan, prints it, loads nothing. */
static int print_plan(const lb_run_params *p, const lb_run_observer *observer, bool json) {
    char *text = NULL, *document = NULL;
    lb_error error = {0};
    lb_status status = lb_run_plan(p, observer, &text, &document, &error);
    if (json ? document : text)
        fputs(json ? document : text, stdout);
    if (json && document)
        fputc('\n', stdout);
    free(text);
    free(document);
    if (status == LB_STATUS_OK)
        return LB_EXIT_OK;
    return lb_cli_fail(error.message, status == LB_STATUS_DOES_NOT_FIT ? LB_EXIT_DOES_NOT_FIT : LB_EXIT_NOTHING);
}

/* One table of options for both verbs: a plan is that of an answer with the same words. */
static int run_verb(int argc, char **argv, bool plan_only) {
    lb_run_params p = lb_run_default_params();
    lb_engine_params *e = &p.child.engine;
    lb_frames_params *f = &p.clip.frames;
    const char *model = NULL, *mmproj = NULL, *detector = NULL, *answer = "generate", *retry = "yes", *engines = "auto";
    double from_s = -INFINITY, to_s = INFINITY, deadline_s = INFINITY;
    bool verbose = false, json = false, detect = false;
    memory_options memory = {0};
    const lb_option options[] = {
        {.kind = LB_OPTION_HEADING, .help = "Models"},
        {"model", 'm', NULL, LB_OPTION_TEXT, &model, 0, 0, "LLM.gguf|DIR",
         "language model, or a folder with both files; default: the small one that ships"},
        {"mmproj", 0, NULL, LB_OPTION_TEXT, &mmproj, 0, 0, "MMPROJ.gguf",
         "vision encoder; default: the one beside --model"},
        {"device", 0, NULL, LB_OPTION_TEXT, &e->vlm.device, 0, 0, "NAME",
         "auto, cpu, cuda0 (as nvidia-smi numbers the cards), cuda0,cuda1"},
        {"engines", 0, NULL, LB_OPTION_TEXT, &engines, 0, 0, "N|auto",
         "answering at once, each on its own devices; auto: as many as they allow"},
        {"threads", 't', NULL, LB_OPTION_INT, &e->vlm.n_threads, 0, 1024, "N", "CPU threads; default: one a core"},
        {.kind = LB_OPTION_HEADING, .help = "Questions and videos"},
        {"videos", 0, NULL, LB_OPTION_TEXT, &p.videos, 0, 0, "DIR",
         "where video_path starts; default: the file's folder"},
        {"samples", 0, NULL, LB_OPTION_SIZE, &p.max_questions, 0, 0, "N", "only the first N questions"},
        {"keep-going", 0, NULL, LB_OPTION_TRUE, &p.keep_going, 0, 0, NULL,
         "a faulty file: ask the sound questions, A for the others"},
        {"allow-outside", 0, NULL, LB_OPTION_TRUE, &p.allow_outside, 0, 0, NULL,
         "video_path may leave the video folder"},
        {.kind = LB_OPTION_HEADING, .help = "What the model sees"},
        {"num-frames", 'n', "num_frames", LB_OPTION_INT, &f->n_frames, 1, 1024, "N", "frames a video, spread evenly"},
        {"max-tiles", 0, NULL, LB_OPTION_INT, &p.clip.max_tiles, 1, LB_TILES_MAX, "N",
         "tiles a frame at most (with more than one a thumbnail is added)"},
        {"from", 0, NULL, LB_OPTION_SECONDS, &from_s, 0, 0, "S", "frames from this second of the video on"},
        {"to", 0, NULL, LB_OPTION_SECONDS, &to_s, 0, 0, "S", "frames up to this second"},
        {"decode-timeout", 0, NULL, LB_OPTION_SECONDS, &f->timeout_s, 0, 0, "S",
         "give a video up after so long for a frame"},
        {"deadline", 0, NULL, LB_OPTION_SECONDS, &deadline_s, 0, 0, "S",
         "a question's, from path to answer: fewer frames or crops where time is short"},
        {.kind = LB_OPTION_HEADING, .help = "Detector (without the first or second option there is none)"},
        {"detector", 0, "grounding_dino_model", LB_OPTION_TEXT, &detector, 0, 0, "DET.gguf|DIR",
         "the detector, made by lowbeam convert"},
        {"use_grounding_dino", 0, NULL, LB_OPTION_TRUE, &detect, 0, 0, NULL,
         "the detector that ships, where none is named"},
        {"labels", 0, NULL, LB_OPTION_TEXT, &e->labels_path, 0, 0, "FILE",
         "what to look for, one label a line; default: signs, lights, vehicles, ..."},
        {"box-threshold", 0, "detection_threshold", LB_OPTION_SHARE, &e->box_threshold, 0, 0, "P",
         "a box counts above this score"},
        {"text-threshold", 0, NULL, LB_OPTION_SHARE, &e->text_threshold, 0, 0, "P",
         "a word is in a box's label above this score"},
        {"max-detections", 0, "max_detections_per_frame", LB_OPTION_INT, &e->max_detections, 1, 1 << 14, "N",
         "boxes of a frame that the model is shown, at most"},
        {"detector-batch", 0, NULL, LB_OPTION_INT, &e->detector_batch, 0, 64, "N", "frames at once; default: chosen"},
        {.kind = LB_OPTION_HEADING, .help = "Prompt and answer"},
        {"prompt", 0, NULL, LB_OPTION_TEXT, &e->prompt_path, 0, 0, "FILE",
         "template; default: the built-in Vietnamese one"},
        {"system", 0, NULL, LB_OPTION_TEXT, &e->system, 0, 0, "TEXT", "system message; default: the trained one"},
        {"answer", 0, NULL, LB_OPTION_TEXT, &answer, 0, 0, "generate|letter",
         "text and its letter, or the letters' probabilities at once"},
        {"max-new-tokens", 0, NULL, LB_OPTION_INT, &e->max_new_tokens, 1, 1 << 20, "N", "longest answer"},
        {"no-reuse", 0, NULL, LB_OPTION_FALSE, &e->reuse, 0, 0, NULL,
         "evaluate every prompt whole (same answers, slower)"},
        {"exact", 0, NULL, LB_OPTION_TRUE, &e->vlm.exact, 0, 0, NULL,
         "f32 KV cache, no flash attention (for comparisons)"},
        {"batch", 0, NULL, LB_OPTION_INT, &e->vlm.n_parallel, 1, 64, "N", "questions of a video answered at once"},
        {"tile-batch", 0, NULL, LB_OPTION_INT, &e->vlm.tile_batch, 0, 64, "N",
         "tiles encoded at once; default: chosen"},
        {"ubatch", 0, NULL, LB_OPTION_INT, &e->vlm.n_ubatch, 1, 8192, "N", "prompt tokens evaluated at once"},
        {.kind = LB_OPTION_HEADING, .help = "Memory (lowbeam plan shows what these lead to)"},
        {"vram", 0, NULL, LB_OPTION_TEXT, &memory.vram, 0, 0, "SIZE[,SIZE...]",
         "device memory of the run, all of it, for each device; default: what is free"},
        {"ram", 0, NULL, LB_OPTION_TEXT, &memory.ram, 0, 0, "SIZE",
         "host memory for weights that wait there and for caches; default: no limit"},
        {"cache", 0, NULL, LB_OPTION_TEXT, &memory.cache, 0, 0, "SIZE",
         "host memory for frames and tiles; default: a quarter of what is free, 8 GiB at most"},
        {"allow", 0, NULL, LB_OPTION_TEXT, &memory.allow, 0, 0, "LIST",
         "to fit: kv-q8,weights-q8,weights-q4,fewer-tiles,fewer-crops"},
        {"load_in_8bit", 0, NULL, LB_OPTION_TRUE, &memory.load_in_8bit, 0, 0, NULL,
         "8-bit weights, made from the model once and kept beside it"},
        {"weight-bits", 0, NULL, LB_OPTION_INT, &e->weight_bits, 0, 8, "0|8|4",
         "language model's weights: as the file has them, or 8 or 4 bits, made from it once"},
        {"kv-bits", 0, NULL, LB_OPTION_INT, &e->kv_bits, 0, 8, "0|8",
         "KV cache: f16, or 8 bits (q8_0) in half the memory (may change answers)"},
        {"cache-dir", 0, NULL, LB_OPTION_TEXT, &e->cache_dir, 0, 0, "DIR", "folder for what is kept between runs"},
        {"cache-dir-limit", 0, NULL, LB_OPTION_TEXT, &memory.cache_dir_limit, 0, 0, "SIZE",
         "most that --cache-dir keeps of videos (detections, embeddings); default: 20GiB"},
        {"trace", 0, NULL, LB_OPTION_TEXT, &p.child.trace, 0, 0, "FILE",
         "append each allocation there, one JSON line each"},
        {.kind = LB_OPTION_HEADING, .help = "Output"},
        {"out", 'o', NULL, LB_OPTION_TEXT, &p.out, 0, 0, "DIR|FILE.csv", "where the CSV goes"},
        {"columns", 0, NULL, LB_OPTION_TEXT, &p.columns, 0, 0, "LIST",
         "CSV columns; default: id,answer,raw_response,prompt"},
        {"resume", 0, NULL, LB_OPTION_TRUE, &p.resume, 0, 0, NULL,
         "go on with the run of --out FILE.csv, which was stopped"},
        {"retry-failed", 0, NULL, LB_OPTION_TEXT, &retry, 0, 0, "yes|no",
         "with --resume: ask questions again that could not be asked"},
        {"dump", 0, NULL, LB_OPTION_TEXT, &p.dump, 0, 0, "DIR", "write what passes between the parts (docs/dump.md)"},
        {"json", 0, NULL, LB_OPTION_TRUE, &json, 0, 0, NULL, "lowbeam plan: print one JSON document"},
        {"verbose", 'v', NULL, LB_OPTION_TRUE, &verbose, 0, 0, NULL, "a line for each stage of each video"},
    };
    const size_t n_options = sizeof options / sizeof *options;
    lb_error error = {0};
    const char *operand;
    const int ended = lb_cli_begin(
        options, n_options, argc, argv, plan_only ? plan_usage : answer_usage, plan_only ? NULL : answer_example,
        "answer: which questions file? lowbeam answer QUESTIONS.json; see lowbeam answer --help", &operand);
    if (ended >= 0)
        return ended;
    if (strcmp(answer, "letter") != 0 && strcmp(answer, "generate") != 0)
        return lb_cli_fail("--answer: takes generate or letter", LB_EXIT_USAGE);
    e->letter_only = strcmp(answer, "letter") == 0;
    if (read_engines(engines, &p.n_engines, &error) != LB_STATUS_OK)
        return lb_cli_fail(error.message, LB_EXIT_USAGE);
    if (strcmp(retry, "yes") != 0 && strcmp(retry, "no") != 0)
        return lb_cli_fail("--retry-failed: takes yes or no", LB_EXIT_USAGE);
    p.keep_failed = strcmp(retry, "no") == 0;
    if (p.resume && !lb_output_is_file(p.out))
        return lb_cli_fail("--resume: name the CSV of the run to go on with by --out FILE.csv", LB_EXIT_USAGE);
    if (from_s >= to_s)
        return lb_cli_fail("--from: is not below --to", LB_EXIT_USAGE);
    if (f->timeout_s <= 0)
        return lb_cli_fail("--decode-timeout: takes seconds above 0", LB_EXIT_USAGE);
    if (deadline_s <= 0)
        return lb_cli_fail("--deadline: takes seconds above 0", LB_EXIT_USAGE);
    p.deadline_s = isfinite(deadline_s) ? deadline_s : 0;
    e->deadlines = p.deadline_s > 0;
    if (e->labels_path && !detector && !detect)
        return lb_cli_fail("--labels: there is no detector; name one with --detector DET.gguf", LB_EXIT_USAGE);
    f->bounded = isfinite(from_s) || isfinite(to_s);
    f->from_s = from_s;
    f->to_s = to_s;
    p.questions_path = operand;
    p.cancel = &lb_cli_cancelled;
    p.planned = true;
    if (read_memory_options(&memory, e, &error) != LB_STATUS_OK ||
        (memory.cache_dir_limit &&
         lb_bytes_parse("--cache-dir-limit", memory.cache_dir_limit, &p.cache_dir_limit, &error) != LB_STATUS_OK))
        return lb_cli_fail(error.message, LB_EXIT_USAGE);
    if (json && !plan_only)
        return lb_cli_fail("--json: belongs to lowbeam plan", LB_EXIT_USAGE);

    lb_model_files files;
    if (lb_models_find(model, mmproj, &files, &error) != LB_STATUS_OK)
        return lb_cli_fail(error.message, LB_EXIT_NOTHING);
    e->vlm.model_path = files.model;
    e->vlm.mmproj_path = files.mmproj;
    char detector_path[PATH_MAX];
    if (detector || detect) {
        if (lb_models_find_detector(detector, detector_path, &error) != LB_STATUS_OK)
            return lb_cli_fail(error.message, LB_EXIT_NOTHING);
        e->detector_path = detector_path;
    }

    lb_cli_log(verbose);
    lb_cli_catch_signals();
    lb_progress progress = lb_progress_begin(verbose);
    lb_run_observer observer = lb_progress_observer(&progress);
    if (plan_only)
        return print_plan(&p, &observer, json);
    p.child.planned = lb_progress_planned;
    p.child.user = &progress;
    lb_run_result result;
    lb_status status = lb_run_answer(&p, &observer, &result, &error);
    lb_progress_clear(&progress);
    if (status == LB_STATUS_INTERRUPTED)
        return lb_cli_fail("interrupted before the first answer", LB_EXIT_INTERRUPTED);
    if (status != LB_STATUS_OK)
        return lb_cli_fail(error.message, status == LB_STATUS_DOES_NOT_FIT ? LB_EXIT_DOES_NOT_FIT : LB_EXIT_NOTHING);
    lb_progress_vram("End of inference", result.engine.allocated_bytes, result.engine.reserved_bytes);
    print_result(&result, e->cache_dir, p.deadline_s);
    if (result.interrupted)
        return LB_EXIT_INTERRUPTED;
    return result.n_fallback > 0 ? LB_EXIT_FALLBACK : LB_EXIT_OK;
}

int lb_cli_answer(int argc, char **argv) {
    return run_verb(argc, argv, false);
}

int lb_cli_plan(int argc, char **argv) {
    return run_verb(argc, argv, true);
}
