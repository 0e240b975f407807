#include "base/error.h"
#include "base/file.h"
#include "cli/cli.h"
#include "cli/detect_output.h"
#include "cli/models.h"
#include "cli/options.h"
#include "detector/find.h"
#include "image/files.h"
#include "run/child_first.h"
#include "run/npy.h"
#include "video/video.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

/* Pictures of a folder that are held at a time; as many frames of a video. */
enum { BATCH = 8 };

typedef struct detect {
    lb_find *find;
    json_t *coco; /* NULL: none is asked for */
    const char *draw;
    bool json;
    lb_frames_params frames;
    int n_failed, n_frames, n_boxes, n_empty;
} detect;

static bool is_picture(const char *path) {
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path, *dot = strrchr(name, '.');
    return name[0] != '.' && dot && (!strcasecmp(dot, ".png") || !strcasecmp(dot, ".jpg") || !strcasecmp(dot, ".jpeg"));
}

/* Runs the detector on n <= BATCH frames, whose detections are still to come, and puts them out. */
static lb_status put(detect *d, lb_detect_frame *frames, int n, lb_error *error) {
    lb_image_view views[BATCH];
    lb_detections detections[BATCH];
    const lb_labels *labels = lb_find_labels(d->find);
    for (int i = 0; i < n; i++)
        views[i] = frames[i].view;
    lb_status status = n ? lb_find_run(d->find, views, n, detections, error) : LB_STATUS_OK;
    if (status != LB_STATUS_OK)
        return status;
    for (int i = 0; i < n; i++) {
        frames[i].detections = &detections[i];
        if (status == LB_STATUS_OK)
            status = lb_detect_print(&frames[i], labels, d->json, error);
        if (status == LB_STATUS_OK && d->draw)
            status = lb_detect_draw(&frames[i], labels, d->draw, error);
        if (status == LB_STATUS_OK && d->coco)
            status = lb_coco_add(d->coco, &frames[i], error);
        d->n_frames++;
        d->n_boxes += detections[i].n;
        d->n_empty += detections[i].n_empty;
        lb_detections_free(&detections[i]);
    }
    return status;
}

/* Some pictures of a folder; one that cannot be read is told and passed over. */
static lb_status put_pictures(detect *d, char **path, int n, lb_error *error) {
    lb_image images[BATCH] = {0};
    lb_detect_frame frames[BATCH];
    int n_read = 0;
    for (int i = 0; i < n && !lb_cli_cancelled; i++) {
        lb_error fault = {0};
        lb_image *image = &images[n_read];
        if (lb_image_read(path[i], 0, image, &fault) != LB_STATUS_OK) {
            fprintf(stderr, "lowbeam: %s\n", fault.message);
            d->n_failed++;
            continue;
        }
        frames[n_read++] = (lb_detect_frame){
            .file = path[i], .view = {image->data, image->width, image->height, (size_t)image->width * 3}};
    }
    lb_status status = put(d, frames, n_read, error);
    if (status == LB_STATUS_REFUSED && n_read > 1) { /* one of them is too thin: all the others alone */
        status = LB_STATUS_OK;
        for (int i = 0; i < n_read && status == LB_STATUS_OK; i++) {
            status = put(d, &frames[i], 1, error);
            if (status == LB_STATUS_REFUSED) {
                fprintf(stderr, "lowbeam: %s: %s\n", frames[i].file, error->message);
                d->n_failed++;
                status = LB_STATUS_OK;
            }
        }
    } else if (status == LB_STATUS_REFUSED && n_read == 1) {
        fprintf(stderr, "lowbeam: %s: %s\n", frames[0].file, error->message);
        d->n_failed++;
        status = LB_STATUS_OK;
    }
    for (int i = 0; i < n_read; i++)
        lb_image_free(&images[i]);
    return status;
}

static int by_name(const struct dirent **a, const struct dirent **b) {
    return strcmp((*a)->d_name, (*b)->d_name);
}

static int has_picture_name(const struct dirent *entry) {
    return is_picture(entry->d_name);
}

static lb_status put_folder(detect *d, const char *folder, lb_error *error) {
    struct dirent **entry = NULL;
    int n = scandir(folder, &entry, has_picture_name, by_name);
    if (n < 0)
        return lb_error_set(error, LB_STATUS_IO, "%s: %s", folder, strerror(errno));
    lb_status status = LB_STATUS_OK;
    if (n == 0)
        status = lb_error_set(error, LB_STATUS_NOT_FOUND, "%s: no PNG or JPEG files in this folder", folder);
    for (int first = 0; first < n && status == LB_STATUS_OK && !lb_cli_cancelled; first += BATCH) {
        char *path[BATCH] = {0};
        int n_batch = n - first < BATCH ? n - first : BATCH;
        for (int i = 0; i < n_batch; i++)
            if (asprintf(&path[i], "%s/%s", folder, entry[first + i]->d_name) < 0) {
                path[i] = NULL;
                status = lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "%s: no memory", folder);
            }
        if (status == LB_STATUS_OK)
            status = put_pictures(d, path, n_batch, error);
        for (int i = 0; i < n_batch; i++)
            free(path[i]);
    }
    for (int i = 0; i < n; i++)
        free(entry[i]);
    free(entry);
    return status;
}

static lb_status put_video(detect *d, const char *path, lb_error *error) {
    lb_frames *video;
    lb_status status = lb_frames_read(path, &d->frames, &video, error);
    for (int first = 0; status == LB_STATUS_OK && first < video->n_frames && !lb_cli_cancelled; first += BATCH) {
        lb_detect_frame frames[BATCH];
        int n = video->n_frames - first < BATCH ? video->n_frames - first : BATCH;
        for (int i = 0; i < n; i++)
            frames[i] = (lb_detect_frame){.file = path,
                                          .is_video = true,
                                          .index = video->index[first + i],
                                          .time_s = video->time_s[first + i],
                                          .view = lb_frames_view(video, first + i)};
        status = put(d, frames, n, error);
    }
    lb_frames_free(video);
    return status;
}

static lb_status put_operand(detect *d, const char *path, lb_error *error) {
    struct stat info;
    if (stat(path, &info) != 0)
        return lb_error_set(error, LB_STATUS_NOT_FOUND, "%s: %s", path, strerror(errno));
    if (S_ISDIR(info.st_mode))
        return put_folder(d, path, error);
    if (!is_picture(path))
        return put_video(d, path, error);
    char *one[1] = {(char *)path};
    return put_pictures(d, one, 1, error);
}

static int finish(const detect *d, lb_status status, const lb_error *error) {
    if (status == LB_STATUS_INTERRUPTED || lb_cli_cancelled)
        return lb_cli_fail("interrupted", LB_EXIT_INTERRUPTED);
    if (status != LB_STATUS_OK)
        return lb_cli_fail(error->message, status == LB_STATUS_DOES_NOT_FIT ? LB_EXIT_DOES_NOT_FIT : LB_EXIT_NOTHING);
    if (d->n_empty)
        fprintf(stderr, "lowbeam: %d boxes without area were left out\n", d->n_empty);
    if (d->n_failed)
        fprintf(stderr, "lowbeam: %d pictures could not be used\n", d->n_failed);
    return !d->n_failed ? LB_EXIT_OK : d->n_frames ? LB_EXIT_FALLBACK : LB_EXIT_NOTHING;
}

typedef struct trial {
    const char *path, *device;
    lb_find_params params;
} trial;

static lb_status try_model(void *user, lb_error *error) {
    trial *t = user;
    lb_find *find = NULL;
    lb_status status = lb_device_find(t->device, &t->params.detector.device, error);
    if (status == LB_STATUS_OK)
        status = lb_find_open(t->path, &t->params, &find, error);
    lb_find_free(find);
    return status;
}

/* Before a device is looked for here: CUDA does not survive a fork. */
static lb_status check_model(const char *path, const char *device, const lb_find_params *params, lb_error *error) {
    trial t = {.path = path, .device = device, .params = *params};
    const lb_status status = lb_child_first(try_model, &t, &lb_cli_cancelled, error);
    if (status == LB_STATUS_CHILD_DIED)
        lb_error_context(error, "%s", path);
    return status;
}

int lb_cli_detect(int argc, char **argv) {
    detect d = {.frames = lb_frames_default_params()};
    lb_find_params p = lb_find_default_params();
    const char *model = NULL, *coco_path = NULL, *device = "auto";
    bool verbose = false, check_models = false;
    const lb_option options[] = {
        {"detector", 0, "grounding_dino_model", LB_OPTION_TEXT, &model, 0, 0, "DET.gguf|DIR",
         "the detector, made by lowbeam convert; default: the one that ships"},
        {"labels", 0, NULL, LB_OPTION_TEXT, &p.labels_path, 0, 0, "FILE", "what to look for, one label a line"},
        {"box-threshold", 0, "detection_threshold", LB_OPTION_SHARE, &p.box_threshold, 0, 0, "P",
         "a box counts above this score"},
        {"text-threshold", 0, NULL, LB_OPTION_SHARE, &p.text_threshold, 0, 0, "P",
         "a word is in raw_label above this score"},
        {"num-frames", 'n', "num_frames", LB_OPTION_INT, &d.frames.n_frames, 1, 1024, "N",
         "frames of a video, spread evenly"},
        {"json", 0, NULL, LB_OPTION_TRUE, &d.json, 0, 0, NULL, "print one JSON object a frame"},
        {"coco", 0, NULL, LB_OPTION_TEXT, &coco_path, 0, 0, "FILE", "write a COCO file"},
        {"draw", 0, NULL, LB_OPTION_TEXT, &d.draw, 0, 0, "DIR", "write the frames with their boxes there"},
        {"device", 0, NULL, LB_OPTION_TEXT, &device, 0, 0, "NAME",
         "auto, cpu, cuda0 (as nvidia-smi numbers the cards), ..."},
        {"threads", 't', NULL, LB_OPTION_INT, &p.detector.n_threads, 0, 1024, "N", "of the CPU; 0: one a core"},
        {"batch", 0, NULL, LB_OPTION_INT, &p.detector.frame_batch, 0, 64, "N", "frames at once; 0: chosen"},
        {"check-models", 0, NULL, LB_OPTION_TRUE, &check_models, 0, 0, NULL,
         "load the detector in a process of its own first, for files that are not trusted"},
        {"verbose", 'v', NULL, LB_OPTION_TRUE, &verbose, 0, 0, NULL, "say how long each stage takes"},
    };
    const size_t n_options = sizeof options / sizeof *options;
    lb_error error = {0};
    const char *operand;
    const int ended =
        lb_cli_begin(options, n_options, argc, argv,
                     "lowbeam detect IMAGE|VIDEO|FOLDER [options]\n\nThe boxes that Grounding DINO sees "
                     "on a picture (PNG or JPEG), on frames of a video, or on the pictures of a\nfolder.\n\n",
                     NULL, "detect: on what? lowbeam detect IMAGE|VIDEO|FOLDER; see lowbeam detect --help", &operand);
    if (ended >= 0)
        return ended;
    char path[PATH_MAX];
    if (lb_models_find_detector(model, path, &error) != LB_STATUS_OK)
        return lb_cli_fail(error.message, LB_EXIT_NOTHING);
    d.frames.cancel = &lb_cli_cancelled;
    lb_cli_log(verbose);
    lb_cli_catch_signals();

    lb_status status = check_models ? check_model(path, device, &p, &error) : LB_STATUS_OK;
    if (status == LB_STATUS_OK)
        status = lb_device_find(device, &p.detector.device, &error);
    if (status == LB_STATUS_OK && d.draw)
        status = lb_folder_make(d.draw, &error);
    if (status == LB_STATUS_OK)
        status = lb_find_open(path, &p, &d.find, &error);
    if (status == LB_STATUS_OK && coco_path)
        status = lb_coco_begin(lb_find_labels(d.find), &d.coco, &error);
    if (status == LB_STATUS_OK)
        status = put_operand(&d, operand, &error);
    if (status == LB_STATUS_OK && d.coco && !lb_cli_cancelled)
        status = lb_coco_write(d.coco, coco_path, &error);
    int code = finish(&d, status, &error);
    json_decref(d.coco);
    lb_find_free(d.find);
    return code;
}
