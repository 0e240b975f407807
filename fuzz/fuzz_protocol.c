/* libFuzzer entry: any messages in place of lowbeam-decode's: an error that says something, or frames whose indices and
 * times can be relied on. The input is a row of messages: a byte of kind, then (kind & 7):
 *   0 to 5  a reply of that kind whose fields come from the next 36 bytes (0: any kind, from the last of them)
 *   6       a reply overwritten at one place with a byte
 *   7       a message of raw bytes, its length in the next two
 * sources: src/video/client_talk.c src/video/read.c src/video/indices.c
 */
#include "fuzz.h"
#include "video/client_internal.h"
#include "video/protocol.h"

#include "base/error.h"

#include <math.h>
#include <stdbool.h>
#include <sys/socket.h>

enum { MESSAGES_MAX = 60 }; /* what the socket holds without a reader */

/* What of src/video is not linked: processes, and pictures, which have a fuzzer of their own. */
lb_status lb_decoder_died(lb_decoder *d, lb_error *error) {
    (void)d;
    return lb_error_set(error, LB_STATUS_CHILD_DIED, "ended");
}

lb_status lb_decoder_run(int fd, const char *path, const lb_frames_params *params, lb_frames *frames, lb_error *error) {
    (void)fd, (void)path, (void)params, (void)frames;
    return lb_error_set(error, LB_STATUS_INTERNAL, "not here");
}

bool lb_pictures_is_name(const char *name) {
    return !name;
}

lb_status lb_pictures_read(const char *path, bool is_folder, const lb_frames_params *params, lb_frames *frames,
                           lb_error *error) {
    (void)is_folder;
    return lb_decoder_run(-1, path, params, frames, error);
}

static size_t take(const uint8_t **data, size_t *size, void *to, size_t n) {
    if (n > *size)
        n = *size;
    memcpy(to, *data, n);
    *data += n;
    *size -= n;
    return n;
}

/* Fields in the order of their use, small numbers being the likely ones. */
static void fill(lb_decode_reply *reply, const uint8_t **data, size_t *size) {
    struct {
        uint16_t width, height, slot, n_total, fps, status;
        double time_s;
        int64_t wide;
        uint8_t spread, text[7];
    } from = {0};
    take(data, size, &from, sizeof from);
    *reply = (lb_decode_reply){
        .magic = LB_DECODE_MAGIC,
        .version = LB_DECODE_VERSION,
        .width = from.width & 255,
        .height = from.height & 255,
        .slot = from.slot & 15,
        .n_total = from.n_total,
        .fps = from.fps,
        .status = from.status,
        .time_s = from.time_s,
    };
    memcpy(reply->message, from.text, sizeof from.text);
    switch (from.spread & 15) { /* one of them beyond what is likely */
    case 1:
        reply->width = (int32_t)from.wide;
        break;
    case 2:
        reply->height = (int32_t)from.wide;
        break;
    case 3:
        reply->slot = (int32_t)from.wide;
        break;
    case 4:
        reply->n_total = from.wide;
        break;
    case 5:
        memcpy(&reply->fps, &from.wide, sizeof reply->fps);
        break;
    case 6:
        memset(reply->message, 'm', sizeof reply->message); /* no end */
        break;
    case 7:
        reply->magic = (uint32_t)from.wide;
        break;
    case 8:
        reply->version = (uint32_t)from.wide;
        break;
    }
}

static void send_messages(int socket, const uint8_t *data, size_t size) {
    for (int i = 0; i < MESSAGES_MAX && size; i++) {
        uint8_t kind = 0, bytes[2048], patch[3] = {0};
        uint16_t length = 0;
        lb_decode_reply reply;
        take(&data, &size, &kind, 1);
        if ((kind & 7) == 7) {
            take(&data, &size, &length, sizeof length);
            const size_t n = take(&data, &size, bytes, length % sizeof bytes);
            if (n)
                send(socket, bytes, n, MSG_DONTWAIT | MSG_NOSIGNAL);
            continue;
        }
        fill(&reply, &data, &size);
        reply.kind = kind & 7;
        if (reply.kind == 0 || reply.kind == 6)
            take(&data, &size, patch, sizeof patch);
        if (reply.kind == 0)
            reply.kind = (int8_t)patch[0];
        if (reply.kind == 6)
            ((uint8_t *)&reply)[(patch[1] | patch[2] << 8) % sizeof reply] = patch[0];
        send(socket, &reply, sizeof reply, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
}

static void check(const lb_frames *frames, const lb_frames_params *params) {
    LB_FUZZ_ASSERT(frames->width >= 1 && frames->height >= 1 && frames->n_total >= 1 && isfinite(frames->fps));
    LB_FUZZ_ASSERT(frames->n_frames == params->n_frames && frames->data_bytes <= params->max_bytes);
    LB_FUZZ_ASSERT(frames->data_bytes == 3 * (size_t)frames->width * (size_t)frames->height * (size_t)frames->n_frames);
    for (int i = 0; i < frames->n_frames; i++) {
        LB_FUZZ_ASSERT(frames->index[i] >= (i ? frames->index[i - 1] : 0) && frames->index[i] < frames->n_total);
        LB_FUZZ_ASSERT(isfinite(frames->time_s[i]));
    }
    const lb_image_view last = lb_frames_view(frames, frames->n_frames - 1);
    volatile uint8_t sum = 0; /* the memory is there to its end */
    sum ^= last.data[0] ^ last.data[last.stride * (size_t)last.height - 1];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    lb_frames_params params = lb_frames_default_params();
    uint8_t settings[3] = {0};
    take(&data, &size, settings, sizeof settings);
    params.n_frames = 1 + settings[0] % 16;
    params.max_bytes = (size_t)1 << (10 + settings[1] % 16);
    params.bounded = settings[2] & 1;
    if (params.bounded) {
        params.from_s = (settings[2] >> 1) % 8;
        params.to_s = params.from_s + (settings[2] >> 4);
    }
    int pair[2];
    LB_FUZZ_ASSERT(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
    send_messages(pair[1], data, size);
    shutdown(pair[1], SHUT_WR); /* nothing more comes; what the client says is taken and not read */

    lb_decoder d = {.socket = pair[0], .program = "fuzz"};
    lb_frames *frames = NULL;
    lb_error error = {0};
    LB_FUZZ_ASSERT(lb_frames_new(params.n_frames, &frames, &error) == LB_STATUS_OK);
    if (lb_decoder_converse(&d, "fuzz.mp4", &params, frames, &error) == LB_STATUS_OK)
        check(frames, &params);
    else
        LB_FUZZ_ASSERT(error.message[0] && !strpbrk(error.message, "\n\r\033"));
    lb_frames_free(frames);
    close(pair[0]);
    close(pair[1]);
    return 0;
}
