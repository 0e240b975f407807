#include "video/decode.h"
#include "video/decode_confine.h"

#include <errno.h>
#include <libavutil/log.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* FFmpeg's last complaint; its threads write it. */
static pthread_mutex_t complaint_lock = PTHREAD_MUTEX_INITIALIZER;
static char complaint[256];

static void keep_complaint(void *context, int level, const char *format, va_list arguments) {
    if (level > AV_LOG_ERROR)
        return;
    char line[sizeof complaint];
    int print_prefix = 0;
    av_log_format_line(context, level, format, arguments, line, sizeof line, &print_prefix);
    line[strcspn(line, "\n")] = 0;
    if (!*line)
        return;
    pthread_mutex_lock(&complaint_lock);
    memcpy(complaint, line, sizeof complaint);
    pthread_mutex_unlock(&complaint_lock);
}

static void send_reply(lb_decode_reply *reply) {
    reply->magic = LB_DECODE_MAGIC;
    reply->version = LB_DECODE_VERSION;
    ssize_t sent;
    do
        sent = send(LB_DECODE_FD_SOCKET, reply, sizeof *reply, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    if (sent != (ssize_t)sizeof *reply)
        _exit(1); /* nobody listens any more */
}

void lb_decode_fail(lb_status status, const char *format, ...) {
    lb_decode_reply reply = {.kind = LB_DECODE_ERROR, .status = (int32_t)status};
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(reply.message, sizeof reply.message, format, arguments);
    va_end(arguments);
    pthread_mutex_lock(&complaint_lock);
    if (*complaint && length >= 0 && (size_t)length < sizeof reply.message)
        snprintf(reply.message + length, sizeof reply.message - (size_t)length, " (FFmpeg: %s)", complaint);
    send_reply(&reply);
    _exit(1);
}

const char *lb_decode_text(int averror) {
    static char text[AV_ERROR_MAX_STRING_SIZE];
    return av_make_error_string(text, sizeof text, averror);
}

void lb_decode_progress(void) {
    static double told_s;
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
    const double now_s = (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
    if (now_s - told_s < 0.1)
        return;
    told_s = now_s;
    send_reply(&(lb_decode_reply){.kind = LB_DECODE_PROGRESS});
}

void lb_decode_send_frame(int slot, double time_s) {
    send_reply(&(lb_decode_reply){.kind = LB_DECODE_FRAME, .slot = slot, .time_s = time_s});
}

static void receive(void *message, size_t least, size_t most) {
    ssize_t bytes;
    do
        bytes = recv(LB_DECODE_FD_SOCKET, message, most, 0);
    while (bytes < 0 && errno == EINTR);
    if (bytes < (ssize_t)least)
        _exit(1);
}

static uint8_t *map_frames(size_t bytes) {
    if (lseek(LB_DECODE_FD_FRAMES, 0, SEEK_END) != (off_t)bytes)
        lb_decode_fail(LB_STATUS_INTERNAL, "the memory for the frames has another size than the frames");
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, LB_DECODE_FD_FRAMES, 0);
    if (memory == MAP_FAILED)
        lb_decode_fail(LB_STATUS_OUT_OF_MEMORY, "cannot map %zu bytes of frames: %s", bytes, strerror(errno));
    return memory;
}

int main(void) {
    struct stat st;
    int type = 0;
    socklen_t type_bytes = sizeof type;
    if (getsockopt(LB_DECODE_FD_SOCKET, SOL_SOCKET, SO_TYPE, &type, &type_bytes) || type != SOCK_SEQPACKET ||
        fstat(LB_DECODE_FD_FILE, &st)) {
        fputs("lowbeam-decode is started by lowbeam and does nothing by itself; see lowbeam frames --help\n", stderr);
        return 2;
    }
    lb_decode_request request;
    receive(&request, sizeof request, sizeof request);
    if (request.magic != LB_DECODE_MAGIC || request.version != LB_DECODE_VERSION)
        lb_decode_fail(LB_STATUS_INTERNAL, "lowbeam and lowbeam-decode are of different versions");
    request.extension[sizeof request.extension - 1] = 0;
    const int filter_errno = lb_decode_confine(&request);
    av_log_set_callback(keep_complaint);

    lb_input input;
    lb_stream_index index;
    lb_pixels pixels;
    lb_input_open(&input, LB_DECODE_FD_FILE, st.st_size, request.extension);
    lb_pixels_init(&pixels, input.stream);
    lb_stream_index_build(&input, &index);
    send_reply(&(lb_decode_reply){
        .kind = LB_DECODE_HEADER,
        .width = pixels.width,
        .height = pixels.height,
        .n_total = index.n,
        .fps = lb_input_fps(&input, &index),
        .filter_errno = filter_errno,
    });

    static lb_decode_go go;
    receive(&go, offsetof(lb_decode_go, index) + sizeof *go.index, sizeof go);
    if (go.n_frames < 1 || go.n_frames > LB_DECODE_FRAMES_MAX)
        lb_decode_fail(LB_STATUS_INTERNAL, "%d frames asked for", go.n_frames);
    for (int i = 0; i < go.n_frames; i++)
        if (go.index[i] < (i ? go.index[i - 1] : 0) || go.index[i] >= index.n)
            lb_decode_fail(LB_STATUS_INTERNAL, "frame %lld asked for, of %d", (long long)go.index[i], index.n);
    uint8_t *frames = map_frames(3 * (size_t)go.n_frames * (size_t)pixels.width * (size_t)pixels.height);
    lb_frames_decode(&input, &index, &pixels, request.threads, &go, frames);
    send_reply(&(lb_decode_reply){.kind = LB_DECODE_DONE});
    _exit(0); /* the kernel takes everything back faster than libavcodec does */
}
