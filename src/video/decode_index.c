#include "video/decode.h"

#include <stdlib.h>
#include <string.h>

static const lb_packet_info *sorted_packets; /* qsort gives its comparison no context; this program sorts once */

static int compare_times(const void *a, const void *b) {
    const int32_t i = *(const int32_t *)a, j = *(const int32_t *)b;
    const int64_t x = sorted_packets[i].pts, y = sorted_packets[j].pts;
    return x != y ? (x < y ? -1 : 1) : (i > j) - (i < j);
}

/* As decord: what is left of an MP4 or MOV file of which a part is missing is not taken for the video, since frames
 * spread over the rest would be others than the whole file's. (Files of other kinds have no index to tell: cut off,
 * they are shorter videos, to decord too.) */
static void refuse_cut_file(const lb_input *input, int n_read) {
    if (input->read_error)
        lb_decode_fail(LB_STATUS_FORMAT, "the file is broken after frame %d: %s", n_read,
                       lb_decode_text(input->read_error));
    if (strncmp(input->format->iformat->name, "mov", 3))
        return;
    const int n_entries = avformat_index_get_entries_count(input->stream);
    int n_missing = 0;
    for (int i = 0; i < n_entries; i++) {
        const AVIndexEntry *entry = avformat_index_get_entry(input->stream, i);
        n_missing += entry && entry->size > 0 && entry->pos > input->size - entry->size;
    }
    if (n_missing)
        lb_decode_fail(LB_STATUS_FORMAT, "the file is cut off: %d of its %d frames lie past its end", n_missing,
                       n_entries);
}

void lb_stream_index_build(lb_input *input, lb_stream_index *index) {
    *index = (lb_stream_index){.is_timed = true};
    AVPacket *packet = av_packet_alloc();
    int room = 0;
    while (packet && index->n < LB_DECODE_PACKETS_MAX && lb_input_read(input, packet)) {
        if (index->n == room) {
            room = room ? 2 * room : 1024;
            index->packets = reallocarray(index->packets, (size_t)room, sizeof *index->packets);
            if (!index->packets)
                break;
        }
        index->packets[index->n++] = (lb_packet_info){
            .pts = packet->pts,
            .dts = packet->dts,
            .position = packet->pos,
            .is_key = packet->flags & AV_PKT_FLAG_KEY,
        };
        av_packet_unref(packet);
    }
    if (packet)
        refuse_cut_file(input, index->n);
    if (packet && index->n == 0)
        lb_decode_fail(LB_STATUS_FORMAT, "the video stream is empty or cut off before its first frame");
    index->by_time = calloc((size_t)index->n + 1, sizeof *index->by_time);
    if (!packet || !index->packets || !index->by_time)
        lb_decode_fail(LB_STATUS_OUT_OF_MEMORY, "no memory for the index of %d packets", index->n);
    av_packet_free(&packet);

    for (int i = 0; i < index->n; i++)
        index->by_time[i] = i;
    sorted_packets = index->packets;
    qsort(index->by_time, (size_t)index->n, sizeof *index->by_time, compare_times);
    /* AV_NOPTS_VALUE is the smallest number: a packet without time stands first. */
    for (int i = 0; i < index->n && index->is_timed; i++) {
        const int64_t pts = index->packets[index->by_time[i]].pts;
        index->is_timed = pts != AV_NOPTS_VALUE && (i == 0 || pts != index->packets[index->by_time[i - 1]].pts);
    }
}

int lb_stream_index_find(const lb_stream_index *index, int64_t pts) {
    int low = 0, high = index->n - 1;
    while (low <= high) {
        const int middle = low + (high - low) / 2;
        const int64_t at = index->packets[index->by_time[middle]].pts;
        if (at == pts)
            return middle;
        if (at < pts)
            low = middle + 1;
        else
            high = middle - 1;
    }
    return -1;
}

int lb_stream_index_key(const lb_stream_index *index, int frame, int back) {
    const int own = index->by_time[frame];
    /* A frame shown before its key frame but coded after it (open groups of pictures) needs the group before, too. */
    for (int k = own; k > 0; k--)
        if (index->packets[k].is_key && index->packets[k].pts <= index->packets[own].pts && back-- <= 0)
            return k;
    return 0;
}
