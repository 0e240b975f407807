/* A folder of pictures as a video: frame i is the i-th name in byte order. */
#include "video/protocol.h"
#include "video/thin.h"
#include "video/video_internal.h"

#include "base/error.h"
#include "base/time.h"
#include "image/files.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* By ending, since looking into each of 100,000 files would cost more than reading eight of them. Hidden files are left
 * out: macOS puts a `._x.png`, which is no PNG, beside x.png on foreign disks. */
bool lb_pictures_is_name(const char *path) {
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path, *dot = strrchr(name, '.');
    return name[0] != '.' && dot && (!strcasecmp(dot, ".png") || !strcasecmp(dot, ".jpg") || !strcasecmp(dot, ".jpeg"));
}

typedef struct name_list {
    char **names;
    size_t n, room;
} name_list;

static int compare_names(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b); /* compares as unsigned bytes */
}

static void name_list_free(name_list *list) {
    for (size_t i = 0; i < list->n; i++)
        free(list->names[i]);
    free(list->names);
}

static lb_status name_list_add(name_list *list, const char *name, lb_error *error) {
    if (list->n == list->room) {
        size_t room = list->room ? 2 * list->room : 64;
        char **names = reallocarray(list->names, room, sizeof *names);
        if (!names)
            return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory for the names of %zu pictures", room);
        list->names = names;
        list->room = room;
    }
    char *copy = strdup(name);
    if (!copy)
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory for a name");
    list->names[list->n++] = copy;
    return LB_STATUS_OK;
}

static lb_status list_folder(const char *path, name_list *list, lb_error *error) {
    DIR *folder = opendir(path);
    if (!folder)
        return lb_error_set(error, LB_STATUS_IO, "cannot open the folder: %s", strerror(errno));
    lb_status status = LB_STATUS_OK;
    for (;;) {
        errno = 0;
        const struct dirent *entry = readdir(folder);
        if (!entry) {
            if (errno)
                status = lb_error_set(error, LB_STATUS_IO, "cannot read the folder: %s", strerror(errno));
            break;
        }
        if (!lb_pictures_is_name(entry->d_name))
            continue;
        status = name_list_add(list, entry->d_name, error);
        if (status != LB_STATUS_OK)
            break;
    }
    closedir(folder);
    if (status == LB_STATUS_OK && list->n == 0)
        status = lb_error_set(error, LB_STATUS_FORMAT, "the folder holds no .png, .jpg or .jpeg file");
    if (status == LB_STATUS_OK)
        qsort(list->names, list->n, sizeof *list->names, compare_names);
    return status;
}

/* Only the pictures that are taken are opened, so only among them is the size compared. */
static lb_status read_slot(const char *path, const name_list *list, bool is_folder, int slot,
                           const lb_frames_params *params, lb_frames *frames, lb_error *error) {
    const int64_t index = frames->index[slot];
    const char *name = list->names[index];
    char *full = NULL;
    lb_image image = {0};
    if (is_folder && asprintf(&full, "%s/%s", path, name) < 0)
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory for a path");
    lb_status status = lb_image_read(is_folder ? full : path, params->max_bytes, &image, error);
    if (status != LB_STATUS_OK)
        goto cleanup;
    if (slot == 0)
        status = lb_frames_map(frames, image.width, image.height, params, true, error);
    else if (image.width != frames->width || image.height != frames->height)
        status =
            lb_error_set(error, LB_STATUS_FORMAT,
                         "the pictures differ in size: %s is %dx%d, %s is %dx%d; a video's frames have one size",
                         list->names[frames->index[0]], frames->width, frames->height, name, image.width, image.height);
    if (status != LB_STATUS_OK)
        goto cleanup;
    const size_t bytes = 3 * (size_t)image.width * (size_t)image.height;
    memcpy((uint8_t *)frames->data + (size_t)slot * bytes, image.data, bytes);

cleanup:
    lb_image_free(&image);
    free(full);
    return status;
}

static double one_each(int from, int to, void *user) {
    (void)from, (void)to, (void)user;
    return 1;
}

lb_status lb_pictures_read(const char *path, bool is_folder, const lb_frames_params *params, lb_frames *frames,
                           lb_error *error) {
    name_list list = {0};
    lb_status status = is_folder ? list_folder(path, &list, error) : name_list_add(&list, path, error);
    if (status != LB_STATUS_OK)
        goto cleanup;
    frames->n_total = (int64_t)list.n;
    frames->fps = params->image_fps;
    status = lb_frame_indices(frames->n_total, frames->fps, params, frames->index, error);
    bool there[LB_DECODE_FRAMES_MAX] = {false};
    const double start_s = lb_now_s();
    const int n = params->header_only ? 1 : frames->n_frames;
    for (int i = 0, n_read = 1; i < n && status == LB_STATUS_OK;) {
        frames->time_s[i] = frames->fps > 0 ? (double)frames->index[i] / frames->fps : 0;
        if (params->cancel && *params->cancel) {
            status = lb_error_set(error, LB_STATUS_INTERRUPTED, "interrupted");
        } else if (i > 0 && there[i - 1] &&
                   frames->index[i] == frames->index[i - 1]) { /* the indices ascend: a repeat follows itself */
            const size_t bytes = frames->data_bytes / (size_t)frames->n_frames;
            uint8_t *to = (uint8_t *)frames->data + (size_t)i * bytes;
            memcpy(to, to - bytes, bytes);
        } else {
            status = read_slot(path, &list, is_folder, i, params, frames, error);
        }
        there[i] = true;
        const double elapsed_s = lb_now_s() - start_s;
        i = params->enough_s > 0
                ? lb_thin_next(i, n, (params->enough_s - elapsed_s) * n_read++ / elapsed_s, one_each, NULL)
                : i + 1;
    }
    if (status == LB_STATUS_OK && !params->header_only)
        status = lb_frames_keep(frames, there, error);

cleanup:
    name_list_free(&list);
    return status;
}
