#include "cli/models.h"

#include "base/error.h"

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

/* The one GGUF of a folder that is a vision part, or is not. */
static lb_status find_in(const char *folder, bool vision, char *out, size_t n, lb_error *error) {
    DIR *dir = opendir(folder);
    char found[512] = "";
    size_t count = 0;
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        bool mmproj = strstr(entry->d_name, "mmproj") != NULL;
        if (!is_gguf(entry->d_name) || mmproj != vision || is_later_part(entry->d_name))
            continue;
        size_t used = strlen(found);
        snprintf(found + used, sizeof found - used, "%s%s", count ? ", " : "", entry->d_name);
        snprintf(out, n, "%s/%s", folder, entry->d_name);
        count++;
    }
    if (dir)
        closedir(dir);
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
static lb_status find_default(lb_model_files *files, lb_error *error) {
    static const char *const folders[] = {"../share/lowbeam/models", "../models"};
    char self[PATH_MAX / 2];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    self[n > 0 ? n : 0] = 0;
    char *slash = strrchr(self, '/');
    if (slash)
        *slash = 0;
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        snprintf(files->model, sizeof files->model, "%s/%s/lowbeam-small.gguf", self, folders[i]);
        snprintf(files->mmproj, sizeof files->mmproj, "%s/%s/mmproj-lowbeam-small.gguf", self, folders[i]);
        if (access(files->model, R_OK) == 0 && access(files->mmproj, R_OK) == 0)
            return LB_STATUS_OK;
    }
    return lb_error_set(
        error, LB_STATUS_NOT_FOUND,
        "the default models (lowbeam-small.gguf and its mmproj) are neither in %s/%s nor in %s/%s; name "
        "yours with --model LLM.gguf --mmproj MMPROJ.gguf",
        self, folders[0], self, folders[1]);
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
