/* What lowbeam itself holds, by component: every device (and pinned host) allocation of ours is entered here, and what
 * libllama says that it took is entered beside it.
 *
 *     lb_ledger_add(LB_COMPONENT_VISION_WEIGHTS, bytes);
 *     ...
 *     lb_ledger_sub(LB_COMPONENT_VISION_WEIGHTS, bytes);
 *
 * Process-wide and thread-safe: one process holds one device plan.
 */
#ifndef LB_MEMORY_LEDGER_H
#define LB_MEMORY_LEDGER_H

#include <stddef.h>

/* X(code, text, on the device?) */
#define LB_COMPONENT_LIST(X)                                                                                           \
    X(VISION_WEIGHTS, "vision weights", 1)                                                                             \
    X(VISION_COMPUTE, "vision activations", 1)                                                                         \
    X(LANGUAGE_WEIGHTS, "language weights", 1)                                                                         \
    X(LANGUAGE_KV, "KV cache", 1)                                                                                      \
    X(LANGUAGE_COMPUTE, "language activations", 1)                                                                     \
    X(DETECTOR_WEIGHTS, "detector weights", 1)                                                                         \
    X(DETECTOR_COMPUTE, "detector activations", 1)                                                                     \
    X(EMBEDDINGS, "tile embeddings (host)", 0)                                                                         \
    X(FRAMES, "frames and tiles (host)", 0)

typedef enum lb_component {
#define LB_COMPONENT_ENUM(code, text, device) LB_COMPONENT_##code,
    LB_COMPONENT_LIST(LB_COMPONENT_ENUM)
#undef LB_COMPONENT_ENUM
        LB_COMPONENT_COUNT
} lb_component;

const char *lb_component_text(lb_component component);

void lb_ledger_add(lb_component component, size_t bytes);
void lb_ledger_sub(lb_component component, size_t bytes);

size_t lb_ledger_get(lb_component component);
size_t lb_ledger_device_bytes(void); /* sum of the components that live on the device */

#endif
