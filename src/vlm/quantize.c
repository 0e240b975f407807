#include "vlm/quantize.h"

#include "base/error.h"
#include "base/file.h"
#include "nn/gguf_file.h"
#include "nn/log.h"
#include "vlm/llama_log.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <llama.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

int lb_quantize_type(int bits, int64_t n, bool is_output) {
    const bool whole = n % ggml_blck_size(GGML_TYPE_Q4_K) == 0;
    if (bits == 8)
        return GGML_TYPE_Q8_0;
    if (is_output)
        return whole ? GGML_TYPE_Q6_K : GGML_TYPE_Q8_0;
    return whole ? GGML_TYPE_Q4_K : GGML_TYPE_Q5_0; /* llama.cpp's own fallback for rows of other lengths */
}

bool lb_quantize_find(const char *model, int bits, const char *cache_dir, char *made, size_t n) {
    char folder[PATH_MAX], cache[PATH_MAX], name[NAME_MAX + 1];
    snprintf(folder, sizeof folder, "%s", model);
    char *slash = strrchr(folder, '/');
    snprintf(name, sizeof name, "%.180s", slash ? slash + 1 : folder);
    char *dot = strrchr(name, '.');
    if (dot && strcmp(dot, ".gguf") == 0)
        *dot = 0;
    if (slash)
        slash[slash == folder] = 0;
    else
        snprintf(folder, sizeof folder, ".");
    struct stat info;
    unsigned long long mark = 0;
    if (stat(model, &info) == 0)
        mark = (unsigned long long)info.st_size * 1000003u + (unsigned long long)info.st_mtim.tv_sec * 1009u +
               (unsigned long long)info.st_mtim.tv_nsec;
    char file[NAME_MAX + 64];
    snprintf(file, sizeof file, "%s-lowbeam-%s-%08llx.gguf", name, bits == 8 ? "q8_0" : "q4_k", mark & 0xffffffffu);
    const bool has_cache =
        cache_dir ? snprintf(cache, sizeof cache, "%s", cache_dir) > 0 : lb_user_cache(cache, sizeof cache);
    const char *const where[] = {folder, has_cache ? cache : NULL};
    for (int i = 0; i < 2; i++) {
        if (!where[i])
            continue;
        snprintf(made, n, "%s/%s", where[i], file);
        if (access(made, R_OK) == 0)
            return true;
    }
    const bool beside = !cache_dir && access(folder, W_OK) == 0;
    snprintf(made, n, "%s/%s", beside || !has_cache ? folder : cache, file);
    return false;
}

enum { ABANDONED_AFTER_S = 600 };

/* What runs that were killed while they wrote have left: NAME.<process>.partial that no such process writes and that
 * has not grown for some minutes, since a process in another container, or on another machine, cannot be seen. */
static void remove_abandoned(const char *folder, const char *name) {
    DIR *dir = opendir(folder);
    const size_t n = strlen(name);
    for (struct dirent *entry = dir ? readdir(dir) : NULL; entry; entry = readdir(dir)) {
        char *end;
        if (strncmp(entry->d_name, name, n) != 0 || entry->d_name[n] != '.')
            continue;
        const long pid = strtol(entry->d_name + n + 1, &end, 10);
        struct stat info;
        if (pid > 0 && strcmp(end, ".partial") == 0 && kill((pid_t)pid, 0) != 0 && errno == ESRCH &&
            fstatat(dirfd(dir), entry->d_name, &info, AT_SYMLINK_NOFOLLOW) == 0 &&
            time(NULL) - info.st_mtime > ABANDONED_AFTER_S)
            unlinkat(dirfd(dir), entry->d_name, 0);
    }
    if (dir)
        closedir(dir);
}

/* Makes the folder where it is missing, and room in it. */
static lb_status prepare_folder(const char *made, lb_error *error) {
    char folder[PATH_MAX];
    snprintf(folder, sizeof folder, "%s", made);
    char *slash = strrchr(folder, '/');
    slash[slash == folder] = 0;
    lb_status status = lb_folder_make(folder, error);
    if (status != LB_STATUS_OK)
        return status;
    remove_abandoned(folder, strrchr(made, '/') + 1);
    if (access(folder, W_OK | X_OK) != 0)
        return lb_error_set(error, LB_STATUS_IO,
                            "%s: cannot be written: %s; name a folder for quantized weights with --cache-dir", folder,
                            strerror(errno));
    return LB_STATUS_OK;
}

static lb_status check_source(const char *model, const char *made, lb_error *error) {
    lb_gguf *file = NULL;
    lb_status status = lb_gguf_open(model, &file, error);
    if (status != LB_STATUS_OK)
        return status;
    size_t bytes = 0;
    for (size_t i = 0; i < lb_gguf_n_tensors(file) && status == LB_STATUS_OK; i++) {
        lb_gguf_tensor t;
        lb_gguf_tensor_at(file, i, &t);
        bytes += t.n_bytes;
        if (t.ne[1] > 1 && ggml_is_quantized((enum ggml_type)t.type))
            status = lb_error_set(error, LB_STATUS_FORMAT,
                                  "%s: is quantized already (tensor %s is %s); 8- and 4-bit weights are made from a "
                                  "bf16, f16 or f32 file",
                                  model, t.name, ggml_type_name((enum ggml_type)t.type));
    }
    lb_gguf_close(file);
    char folder[PATH_MAX];
    snprintf(folder, sizeof folder, "%s", made);
    strrchr(folder, '/')[1] = 0;
    struct statvfs room;
    if (status == LB_STATUS_OK && statvfs(folder, &room) == 0 &&
        (double)room.f_bavail * (double)room.f_frsize < (double)bytes * 0.55)
        status = lb_error_set(error, LB_STATUS_IO,
                              "%s: no room for quantized weights (some %.1f GiB); name a folder that has it with "
                              "--cache-dir",
                              folder, (double)bytes * 0.55 / (1 << 30));
    return status;
}

lb_status lb_quantize_make(const char *model, const char *made, int bits, int n_threads, lb_error *error) {
    if (access(made, R_OK) == 0)
        return LB_STATUS_OK;
    lb_status status = prepare_folder(made, error);
    if (status == LB_STATUS_OK)
        status = check_source(model, made, error);
    if (status != LB_STATUS_OK)
        return status;
    char partial[PATH_MAX];
    snprintf(partial, sizeof partial, "%s.%d.partial", made, (int)getpid());
    lb_llama_log_route();
    (void)lb_nn_last_log_error();
    struct llama_model_quantize_params params = llama_model_quantize_default_params();
    params.nthread = n_threads;
    params.ftype = bits == 8 ? LLAMA_FTYPE_MOSTLY_Q8_0 : LLAMA_FTYPE_MOSTLY_Q4_K_S;
    params.pure = true;
    params.output_tensor_type = bits == 8 ? GGML_TYPE_Q8_0 : GGML_TYPE_Q6_K;
    params.token_embedding_type = GGML_TYPE_Q8_0;
    if (llama_model_quantize(model, partial, &params) != 0) {
        unlink(partial);
        return lb_error_set(error, LB_STATUS_BACKEND, "%s: cannot be quantized to %d bits: %s", model, bits,
                            lb_nn_last_log_error());
    }
    int fd = open(partial, O_RDONLY | O_CLOEXEC);
    bool durable = fd >= 0 && fsync(fd) == 0;
    if (fd >= 0)
        close(fd);
    if (!durable || rename(partial, made) != 0) {
        status = lb_error_set(error, LB_STATUS_IO, "%s: cannot be written: %s", made, strerror(errno));
        unlink(partial);
    }
    return status;
}
