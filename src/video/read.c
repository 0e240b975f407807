#include "video/video_internal.h"

#include "base/error.h"
#include "base/log.h"
#include "base/time.h"
#include "video/protocol.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static lb_status check_kind(const struct stat *st, lb_error *error) {
    if (S_ISREG(st->st_mode))
        return LB_STATUS_OK;
    return lb_error_set(error, LB_STATUS_REFUSED, "is %s; a video is a file, or a folder of PNG or JPEG files",
                        S_ISFIFO(st->st_mode)   ? "a FIFO"
                        : S_ISDIR(st->st_mode)  ? "a folder"
                        : S_ISSOCK(st->st_mode) ? "a socket"
                                                : "a device");
}

lb_status lb_video_open(const char *path, int *fd, lb_error *error) {
    struct stat st;
    *fd = -1;
    /* Before opening, which does something to some devices (a tape winds back, a watchdog starts); and after it, since
     * another file may have taken the name. O_NONBLOCK: a FIFO would make us wait for its writer. */
    lb_status status = stat(path, &st) ? LB_STATUS_OK : check_kind(&st, error);
    if (status != LB_STATUS_OK)
        return status;
    *fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
    if (*fd < 0)
        return lb_error_set(error, errno == ENOENT || errno == ENOTDIR ? LB_STATUS_NOT_FOUND : LB_STATUS_IO, "%s",
                            strerror(errno));
    if (fstat(*fd, &st))
        status = lb_error_set(error, LB_STATUS_IO, "%s", strerror(errno));
    else if ((status = check_kind(&st, error)) == LB_STATUS_OK && st.st_size == 0)
        status = lb_error_set(error, LB_STATUS_FORMAT, "the file is empty");
    if (status != LB_STATUS_OK) {
        close(*fd);
        *fd = -1;
    }
    return status;
}

lb_status lb_frames_new(int n_frames, lb_frames **frames, lb_error *error) {
    lb_frames *f = calloc(1, sizeof *f);
    if (!f)
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory for %d frames' indices", n_frames);
    f->n_frames = n_frames;
    f->index = calloc((size_t)n_frames, sizeof *f->index);
    f->time_s = calloc((size_t)n_frames, sizeof *f->time_s);
    f->fd = memfd_create("lowbeam-frames", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (!f->index || !f->time_s || f->fd < 0) {
        lb_frames_free(f);
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no shared memory for the frames: %s", strerror(errno));
    }
    *frames = f;
    return LB_STATUS_OK;
}

lb_status lb_frames_map(lb_frames *frames, int width, int height, const lb_frames_params *params, bool writable,
                        lb_error *error) {
    const size_t max_bytes = params->max_bytes;
    const size_t n = (size_t)frames->n_frames, frame_bytes = 3 * (size_t)width * (size_t)height;
    if (frame_bytes > SIZE_MAX / n || frame_bytes * n > max_bytes)
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY,
                            "%d frames of %dx%d are %.0f MiB, more than the %.0f MiB allowed; take fewer frames",
                            frames->n_frames, width, height, (double)frame_bytes * (double)n / (1 << 20),
                            (double)max_bytes / (1 << 20));
    const size_t bytes = frame_bytes * n;
    lb_status status = params->admit ? params->admit(width, height, params->user, error) : LB_STATUS_OK;
    if (status != LB_STATUS_OK)
        return status;
    /* Sealed before anybody else gets to write in it, so that a decoder gone wrong cannot cut it short under us: a read
     * past the end would kill this process by SIGBUS. */
    if (ftruncate(frames->fd, (off_t)bytes) ||
        fcntl(frames->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL))
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no shared memory for %zu bytes of frames: %s", bytes,
                            strerror(errno));
    void *data = mmap(NULL, bytes, PROT_READ | (writable ? PROT_WRITE : 0), MAP_SHARED, frames->fd, 0);
    if (data == MAP_FAILED)
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "cannot map %zu bytes of frames: %s", bytes,
                            strerror(errno));
    frames->data = data;
    frames->data_bytes = bytes;
    frames->width = width;
    frames->height = height;
    return LB_STATUS_OK;
}

lb_status lb_frames_keep(lb_frames *frames, const bool *there, lb_error *error) {
    const size_t bytes = frames->data_bytes / (size_t)frames->n_frames;
    int n = 0;
    while (n < frames->n_frames && there[n])
        n++;
    if (n == frames->n_frames)
        return LB_STATUS_OK;
    uint8_t *to = mmap(NULL, frames->data_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, frames->fd, 0);
    if (to == MAP_FAILED)
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "cannot map %zu bytes of frames: %s", frames->data_bytes,
                            strerror(errno));
    for (int i = n + 1; i < frames->n_frames; i++) {
        if (!there[i])
            continue;
        memcpy(to + (size_t)n * bytes, to + (size_t)i * bytes, bytes);
        frames->index[n] = frames->index[i];
        frames->time_s[n] = frames->time_s[i];
        n++;
    }
    munmap(to, frames->data_bytes);
    frames->n_frames = n;
    return LB_STATUS_OK;
}

lb_status lb_frames_read(const char *path, const lb_frames_params *params, lb_frames **frames, lb_error *error) {
    *frames = NULL;
    const double t0 = lb_now_s();
    lb_frames *f = NULL;
    int fd = -1;
    struct stat st;
    lb_status status = LB_STATUS_OK;
    if (params->n_frames < 1 || params->n_frames > LB_DECODE_FRAMES_MAX) {
        status = lb_error_set(error, LB_STATUS_INVALID_ARGUMENT, "%d frames asked for; 1 to %d can be",
                              params->n_frames, LB_DECODE_FRAMES_MAX);
        goto cleanup;
    }
    status = lb_frames_new(params->n_frames, &f, error);
    if (status != LB_STATUS_OK)
        goto cleanup;
    const bool is_folder = stat(path, &st) == 0 && S_ISDIR(st.st_mode);
    if (!is_folder)
        status = lb_video_open(path, &fd, error);
    if (status != LB_STATUS_OK)
        goto cleanup;
    if (is_folder || lb_pictures_is_name(path))
        status = lb_pictures_read(path, is_folder, params, f, error);
    else
        status = lb_decoder_run(fd, path, params, f, error);

cleanup:
    if (fd >= 0)
        close(fd);
    if (status != LB_STATUS_OK) {
        lb_frames_free(f);
        lb_error_context(error, "%s", path);
        return status;
    }
    f->decode_time_s = lb_now_s() - t0;
    lb_log(LB_LOG_DEBUG, "video", "path=%s frames=%d total=%lld size=%dx%d time_s=%.3f", path, f->n_frames,
           (long long)f->n_total, f->width, f->height, f->decode_time_s);
    *frames = f;
    return LB_STATUS_OK;
}

lb_status lb_frames_probe(const char *path, const lb_frames_params *given, lb_frames **frames, lb_error *error) {
    lb_frames_params params = *given;
    params.header_only = true;
    return lb_frames_read(path, &params, frames, error);
}

lb_image_view lb_frames_view(const lb_frames *frames, int i) {
    const size_t stride = 3 * (size_t)frames->width;
    return (lb_image_view){
        .data = frames->data + (size_t)i * stride * (size_t)frames->height,
        .width = frames->width,
        .height = frames->height,
        .stride = stride,
    };
}

void lb_frames_free(lb_frames *frames) {
    if (!frames)
        return;
    if (frames->data)
        munmap((void *)frames->data, frames->data_bytes);
    if (frames->fd >= 0)
        close(frames->fd);
    free(frames->index);
    free(frames->time_s);
    free(frames);
}
