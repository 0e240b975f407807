/* Takes from this process, for good, all that decoding does not need. Stands apart from decode.h, so that the tests'
 * own decoder (tests/video/hostile_decode.c) is confined by the same code without FFmpeg. */
#ifndef LB_VIDEO_DECODE_CONFINE_H
#define LB_VIDEO_DECODE_CONFINE_H

#include "video/protocol.h"

/* Call it before a byte of the video is looked at and before the first thread is started. Afterwards:
 *   - memory, processor time: as request says; a file cannot be written, and no further descriptor be opened;
 *   - system calls: the socket can be spoken over, the video be read, the frames' memory be mapped, threads be started;
 *     everything else fails (EPERM), and what is only ever done by an intruder ends the process (SIGSYS): other
 *     programs or processes, the network, looking into other processes;
 *   - when lowbeam dies, so does this process; the kernel short of memory ends this process before others.
 * Returns 0, or the errno with which the kernel refused the system call filter; the limits hold all the same. */
int lb_decode_confine(const lb_decode_request *request);

#endif
