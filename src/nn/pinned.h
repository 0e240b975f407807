/* Host memory that the device copies from and to at full speed; plain memory where there is no such thing.
 *
 *     lb_pinned rows;
 *     lb_pinned_alloc(&device, bytes, LB_COMPONENT_EMBEDDINGS, &rows, &error);
 *     use(rows.data);
 *     lb_pinned_free(&rows);
 */
#ifndef LB_NN_PINNED_H
#define LB_NN_PINNED_H

#include "nn/device.h"

typedef struct lb_pinned {
    void *data;
    size_t bytes;
    void *buffer; /* ggml_backend_buffer_t */
    int component;
} lb_pinned;

/* Entered into the ledger under component. Errors: OUT_OF_MEMORY. */
lb_status lb_pinned_alloc(const lb_device *device, size_t bytes, int component, lb_pinned *pinned, lb_error *error);
void lb_pinned_free(lb_pinned *pinned); /* one that is zero is allowed */

#endif
