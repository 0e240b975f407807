/* What lowbeam itself holds, by device and component: every device (and pinned or shared host) allocation of ours is
 * entered here, and what libllama says that it took is entered beside it. Peaks are kept for each phase of a video, so
 * that a plan can be held against what happened.
 *
 *     lb_ledger_phase(LB_PHASE_LOAD);
 *     lb_ledger_add(LB_COMPONENT_VISION_WEIGHTS, bytes);              // on the first device, or the host
 *     lb_ledger_add_on(1, LB_COMPONENT_LANGUAGE_WEIGHTS, bytes);      // on the second
 *     ...
 *     lb_ledger_sub(LB_COMPONENT_VISION_WEIGHTS, bytes);
 *
 * Process-wide and thread-safe: one process holds one device plan. Without memory of its own: nothing here can fail.
 */
#ifndef LB_MEMORY_LEDGER_H
#define LB_MEMORY_LEDGER_H

#include "lowbeam/status.h"

#include <stddef.h>

enum { LB_DEVICES_MAX = 16 }; /* devices that one process spreads a model over; libllama's own limit */

/* X(code, text, on the device?) */
#define LB_COMPONENT_LIST(X)                                                                                           \
    X(LIBRARIES, "context and libraries", 1)                                                                           \
    X(VISION_WEIGHTS, "vision weights", 1)                                                                             \
    X(VISION_COMPUTE, "vision activations", 1)                                                                         \
    X(LANGUAGE_WEIGHTS, "language weights", 1)                                                                         \
    X(LANGUAGE_KV, "KV cache", 1)                                                                                      \
    X(LANGUAGE_COMPUTE, "language activations", 1)                                                                     \
    X(DETECTOR_WEIGHTS, "detector weights", 1)                                                                         \
    X(DETECTOR_COMPUTE, "detector activations", 1)                                                                     \
    X(EMBEDDINGS, "tile embeddings (host)", 0)                                                                         \
    X(FRAMES, "frames and tiles (host)", 0)                                                                            \
    X(HOST_WEIGHTS, "weights (host)", 0)

typedef enum lb_component {
#define LB_COMPONENT_ENUM(code, text, device) LB_COMPONENT_##code,
    LB_COMPONENT_LIST(LB_COMPONENT_ENUM)
#undef LB_COMPONENT_ENUM
        LB_COMPONENT_COUNT
} lb_component;

/* What a process is doing: a video passes detect to generate in this order. */
#define LB_PHASE_LIST(X)                                                                                               \
    X(LOAD, "load")                                                                                                    \
    X(DETECT, "detect")                                                                                                \
    X(ENCODE, "encode")                                                                                                \
    X(PROMPT, "prompt")                                                                                                \
    X(GENERATE, "generate")

typedef enum lb_phase {
#define LB_PHASE_ENUM(code, text) LB_PHASE_##code,
    LB_PHASE_LIST(LB_PHASE_ENUM)
#undef LB_PHASE_ENUM
        LB_PHASE_COUNT
} lb_phase;

const char *lb_component_text(lb_component component);
const char *lb_component_name(lb_component component); /* "vision_weights": for JSON */
int lb_component_on_device(lb_component component);
const char *lb_phase_text(lb_phase phase);

/* device: 0 to LB_DEVICES_MAX - 1; of no account for components on the host. */
void lb_ledger_add_on(int device, lb_component component, size_t bytes);
void lb_ledger_sub_on(int device, lb_component component, size_t bytes);
void lb_ledger_add(lb_component component, size_t bytes); /* on device 0 */
void lb_ledger_sub(lb_component component, size_t bytes);

void lb_ledger_phase(lb_phase phase); /* from now on peaks are those of this phase */
lb_phase lb_ledger_phase_now(void);
void lb_ledger_video(const char *video); /* for the trace: what this thread works on, "" for nothing; copied */

size_t lb_ledger_get(lb_component component); /* over all devices */
size_t lb_ledger_get_on(int device, lb_component component);
size_t lb_ledger_device_bytes(void); /* live, over all devices, host components left out */
size_t lb_ledger_device_bytes_on(int device);
size_t lb_ledger_host_bytes(void);

/* Most that was live at once on the device during a phase, of a component or (LB_COMPONENT_COUNT) of all together. */
size_t lb_ledger_peak_on(int device, lb_phase phase, lb_component component);

/* Appends one JSON line an event to a file: {"t":seconds,"pid":...,"event":"add"|"sub","device":0,"component":"...",
 * "bytes":...,"held":...,"phase":"...","video":"..."}; held: the device's total after it. Several processes may append
 * to one file. path NULL ends it. Errors: IO. */
lb_status lb_ledger_trace(const char *path, lb_error *error);

#endif
