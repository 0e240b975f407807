#include "memory/ledger.h"

#include <stdatomic.h>

static atomic_size_t held[LB_COMPONENT_COUNT];

static const struct {
    const char *text;
    int on_device;
} component_table[LB_COMPONENT_COUNT] = {
#define LB_COMPONENT_ROW(code, text, device) [LB_COMPONENT_##code] = {text, device},
    LB_COMPONENT_LIST(LB_COMPONENT_ROW)
#undef LB_COMPONENT_ROW
};

const char *lb_component_text(lb_component component) {
    return component_table[component].text;
}

void lb_ledger_add(lb_component component, size_t bytes) {
    atomic_fetch_add(&held[component], bytes);
}

void lb_ledger_sub(lb_component component, size_t bytes) {
    atomic_fetch_sub(&held[component], bytes);
}

size_t lb_ledger_get(lb_component component) {
    return atomic_load(&held[component]);
}

size_t lb_ledger_device_bytes(void) {
    size_t sum = 0;
    for (int i = 0; i < LB_COMPONENT_COUNT; i++)
        if (component_table[i].on_device)
            sum += atomic_load(&held[i]);
    return sum;
}
