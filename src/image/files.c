#include "image/files_internal.h"

#include "base/error.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const off_t file_bytes_max = (off_t)1 << 30; /* no picture that a camera wrote is larger */

lb_status lb_image_new(uint32_t width, uint32_t height, size_t max_bytes, lb_image *image, lb_error *error) {
    if (width < 1 || height < 1 || width > 65535 || height > 65535)
        return lb_error_set(error, LB_STATUS_FORMAT, "the picture says that it is %ux%u", width, height);
    const size_t bytes = 3 * (size_t)width * height;
    if (bytes > max_bytes)
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY,
                            "a picture of %ux%u needs %.0f MiB, more than the %.0f MiB allowed", width, height,
                            (double)bytes / (1 << 20), (double)max_bytes / (1 << 20));
    image->data = malloc(bytes);
    if (!image->data)
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory for a picture of %ux%u", width, height);
    image->width = (int)width;
    image->height = (int)height;
    return LB_STATUS_OK;
}

/* The whole file; *bytes is the caller's to free. */
static lb_status read_file(const char *path, uint8_t **bytes, size_t *size, lb_error *error) {
    lb_status status = LB_STATUS_OK;
    struct stat st;
    *size = 0;
    /* A device may take being opened for an order, so it is asked before; O_NONBLOCK: a FIFO that takes the name in
     * between must not stop us. */
    if (stat(path, &st) == 0 && !S_ISREG(st.st_mode))
        return lb_error_set(error, LB_STATUS_IO, "not a regular file");
    const int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
    if (fd < 0)
        return lb_error_set(error, errno == ENOENT || errno == ENOTDIR ? LB_STATUS_NOT_FOUND : LB_STATUS_IO, "%s",
                            strerror(errno));
    if (fstat(fd, &st))
        status = lb_error_set(error, LB_STATUS_IO, "%s", strerror(errno));
    else if (!S_ISREG(st.st_mode))
        status = lb_error_set(error, LB_STATUS_IO, "not a regular file");
    else if (st.st_size == 0)
        status = lb_error_set(error, LB_STATUS_FORMAT, "the file is empty");
    else if (st.st_size > file_bytes_max)
        status = lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "%lld bytes are too many for a picture",
                              (long long)st.st_size);
    else if (!(*bytes = malloc((size_t)st.st_size)))
        status = lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory for %lld bytes", (long long)st.st_size);
    while (status == LB_STATUS_OK && *size < (size_t)st.st_size) {
        const ssize_t got = read(fd, *bytes + *size, (size_t)st.st_size - *size);
        if (got > 0)
            *size += (size_t)got;
        else if (got == 0)
            break; /* shortened while it was read */
        else if (errno != EINTR)
            status = lb_error_set(error, LB_STATUS_IO, "%s", strerror(errno));
    }
    close(fd);
    return status;
}

lb_status lb_image_read(const char *path, size_t max_bytes, lb_image *image, lb_error *error) {
    static const uint8_t png[] = {0x89, 'P', 'N', 'G'}, jpeg[] = {0xff, 0xd8, 0xff};
    uint8_t *bytes = NULL;
    size_t size = 0;
    *image = (lb_image){0};
    if (max_bytes == 0)
        max_bytes = (size_t)1 << 30;
    lb_status status = read_file(path, &bytes, &size, error);
    if (status == LB_STATUS_OK) {
        if (size >= sizeof png && !memcmp(bytes, png, sizeof png))
            status = lb_png_read(bytes, size, max_bytes, image, error);
        else if (size >= sizeof jpeg && !memcmp(bytes, jpeg, sizeof jpeg))
            status = lb_jpeg_read(bytes, size, max_bytes, image, error);
        else
            status = lb_error_set(error, LB_STATUS_FORMAT, "neither a PNG nor a JPEG file");
    }
    free(bytes);
    if (status != LB_STATUS_OK) {
        lb_image_free(image);
        lb_error_context(error, "%s", path);
    }
    return status;
}

void lb_image_free(lb_image *image) {
    free(image->data);
    *image = (lb_image){0};
}
