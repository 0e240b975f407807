#include "cli/models.h"

#include "base/error.h"
#include "nn/gguf_file.h"

#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool is_folder(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static bool is_gguf(const char *name) {
    size_t n = strlen(name);
    return n > 5 && strcmp(name + n - 5, ".gguf") == 0;
}

/* A split model is loaded by its first part. */
static bool is_later_part(const char *name) {
    const char *of = strstr(name, "-of-");
    return of && of - name >= 6 && strncmp(of - 6, "-00001", 6) != 0;
}

/* Made by us from the model beside it, see vlm/quantize.h: found by the plan, not by its name. */
static bool is_made(const char *name) {
    return strstr(name, "-lowbeam-q8_0-") || strstr(name, "-lowbeam-q4_k-");
}

typedef enum part { PART_LANGUAGE, PART_VISION, PART_DETECTOR } part;

/* By its name, as far as that tells; a detector by its header. */
static part part_of(const char *path, const char *name) {
    if (strstr(name, "mmproj"))
        return PART_VISION;
    lb_gguf *file = NULL;
    const char *architecture = "";
    if (lb_gguf_open(path, &file, NULL) == LB_STATUS_OK)
        lb_gguf_string(file, "general.architecture", &architecture, NULL);
    const bool detector = strcmp(architecture, "grounding-dino") == 0;
    lb_gguf_close(file);
    return detector ? PART_DETECTOR : PART_LANGUAGE;
}

/* How many GGUF files of a folder are that part; found: their names, out: the last one's path. */
static size_t count_in(const char *folder, part wanted, char *out, size_t n, char *found, size_t n_found) {
    DIR *dir = opendir(folder);
    size_t count = 0;
    char path[PATH_MAX];
    found[0] = 0;
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        if (!is_gguf(entry->d_name) || is_later_part(entry->d_name) || is_made(entry->d_name) ||
            (size_t)snprintf(path, sizeof path, "%s/%s", folder, entry->d_name) >= sizeof path ||
            part_of(path, entry->d_name) != wanted)
            continue;
        size_t used = strlen(found);
        snprintf(found + used, n_found - used, "%s%s", count ? ", " : "", entry->d_name);
        snprintf(out, n, "%s", path);
        count++;
    }
    if (dir)
        closedir(dir);
    return count;
}

/* The one GGUF of a folder that is a vision part, or is a language model. */
static lb_status find_in(const char *folder, bool vision, char *out, size_t n, lb_error *error) {
    char found[512];
    size_t count = count_in(folder, vision ? PART_VISION : PART_LANGUAGE, out, n, found, sizeof found);
    if (count == 1)
        return LB_STATUS_OK;
    const char *option = vision ? "--mmproj" : "--model";
    if (count > 1)
        return lb_error_set(error, LB_STATUS_INVALID_ARGUMENT, "%s: several files would do (%s); name one with %s",
                            folder, found, option);
    if (vision)
        return lb_error_set(
            error, LB_STATUS_NOT_FOUND,
            "%s: no vision part (*mmproj*.gguf) there; name it with --mmproj, or make it with llama.cpp's "
            "convert_hf_to_gguf.py CHECKPOINT --mmproj --outfile %s/mmproj.gguf",
            folder, folder);
    return lb_error_set(error, LB_STATUS_NOT_FOUND,
                        "%s: no GGUF file of a language model there; make both with llama.cpp's convert_hf_to_gguf.py "
                        "CHECKPOINT --outfile %s/model.gguf and the same with --mmproj --outfile %s/mmproj.gguf",
                        folder, folder, folder);
}

/* The models that ship with lowbeam: beside an installed program in share/lowbeam/models, beside one in its build
 * folder in the checkout's models/. */
enum { N_DEFAULT_FOLDERS = 2 };
static const char *const default_folders[N_DEFAULT_FOLDERS] = {"../share/lowbeam/models", "../models"};

static void own_folder(char self[PATH_MAX / 2]) {
    ssize_t n = readlink("/proc/self/exe", self, PATH_MAX / 2 - 1);
    self[n > 0 ? n : 0] = 0;
    char *slash = strrchr(self, '/');
    if (slash)
        *slash = 0;
}

static lb_status find_default(lb_model_files *files, lb_error *error) {
    char self[PATH_MAX / 2];
    own_folder(self);
    for (size_t i = 0; i < N_DEFAULT_FOLDERS; i++) {
        snprintf(files->model, sizeof files->model, "%s/%s/lowbeam-small.gguf", self, default_folders[i]);
        snprintf(files->mmproj, sizeof files->mmproj, "%s/%s/mmproj-lowbeam-small.gguf", self, default_folders[i]);
        if (access(files->model, R_OK) == 0 && access(files->mmproj, R_OK) == 0)
            return LB_STATUS_OK;
    }
    return lb_error_set(
        error, LB_STATUS_NOT_FOUND,
        "the default models (lowbeam-small.gguf and its mmproj) are neither in %s/%s nor in %s/%s; name "
        "yours with --model LLM.gguf --mmproj MMPROJ.gguf",
        self, default_folders[0], self, default_folders[1]);
}

static lb_status find_default_detector(char *path, lb_error *error) {
    char self[PATH_MAX / 2];
    own_folder(self);
    for (size_t i = 0; i < N_DEFAULT_FOLDERS; i++) {
        snprintf(path, PATH_MAX, "%s/%s/grounding-dino-lowbeam-small.gguf", self, default_folders[i]);
        if (access(path, R_OK) == 0)
            return LB_STATUS_OK;
    }
    return lb_error_set(
        error, LB_STATUS_NOT_FOUND,
        "no default detector (grounding-dino-lowbeam-small.gguf) in %s/%s or %s/%s; fetch a checkpoint "
        "(huggingface-cli download IDEA-Research/grounding-dino-tiny --local-dir grounding-dino-tiny), "
        "make lowbeam convert grounding-dino-tiny -o grounding-dino-tiny.gguf of it, and name that with "
        "--detector grounding-dino-tiny.gguf",
        self, default_folders[0], self, default_folders[1]);
}

lb_status lb_models_find_detector(const char *name, char *path, lb_error *error) {
    if (!name)
        return find_default_detector(path, error);
    if (is_folder(name)) {
        char found[512];
        const size_t count = count_in(name, PART_DETECTOR, path, PATH_MAX, found, sizeof found);
        if (count > 1)
            return lb_error_set(error, LB_STATUS_INVALID_ARGUMENT,
                                "%s: several detectors would do (%s); name one with --detector", name, found);
        return count == 1
                   ? LB_STATUS_OK
                   : lb_error_set(error, LB_STATUS_NOT_FOUND,
                                  "%s: no GGUF file of a detector there; if it is a published checkpoint, lowbeam "
                                  "convert %s -o %s/detector.gguf makes one",
                                  name, name, name);
    }
    if (!is_gguf(name) && strchr(name, '/') && name[0] != '/' && name[0] != '.')
        return lb_error_set(error, LB_STATUS_NOT_FOUND,
                            "%s: no folder of that name here; fetch the checkpoint (huggingface-cli download %s "
                            "--local-dir %s), then lowbeam convert %s -o %s/detector.gguf",
                            name, name, name, name, name);
    if ((size_t)snprintf(path, PATH_MAX, "%s", name) >= PATH_MAX)
        return lb_error_set(error, LB_STATUS_INVALID_ARGUMENT, "%s: the path is too long", name);
    return LB_STATUS_OK;
}

lb_status lb_models_find(const char *model, const char *mmproj, lb_model_files *files, lb_error *error) {
    memset(files, 0, sizeof *files);
    if (!model)
        return find_default(files, error);
    lb_status status = LB_STATUS_OK;
    if (is_folder(model)) {
        status = find_in(model, false, files->model, sizeof files->model, error);
    } else if (!is_gguf(model) && strchr(model, '/') && model[0] != '/' && model[0] != '.') {
        return lb_error_set(error, LB_STATUS_NOT_FOUND,
                            "%s: no folder of that name here; fetch the checkpoint (huggingface-cli download %s "
                            "--local-dir %s), then make both files with llama.cpp's convert_hf_to_gguf.py %s --outfile "
                            "%s/model.gguf and the same with --mmproj --outfile %s/mmproj.gguf",
                            model, model, model, model, model, model);
    } else {
        snprintf(files->model, sizeof files->model, "%s", model);
    }
    if (status != LB_STATUS_OK)
        return status;
    if (mmproj) {
        snprintf(files->mmproj, sizeof files->mmproj, "%s", mmproj);
        return LB_STATUS_OK;
    }
    char folder[PATH_MAX];
    snprintf(folder, sizeof folder, "%s", files->model);
    char *slash = strrchr(folder, '/');
    if (slash == folder)
        slash[1] = 0;
    else if (slash)
        *slash = 0;
    else
        snprintf(folder, sizeof folder, ".");
    return find_in(folder, true, files->mmproj, sizeof files->mmproj, error);
}
