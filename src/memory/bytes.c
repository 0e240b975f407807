/* Sizes as users write them. */
#include "memory/plan.h"

#include "base/error.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

lb_status lb_bytes_parse(const char *option, const char *text, size_t *bytes, lb_error *error) {
    static const struct {
        const char *unit;
        double factor;
    } units[] = {{"", 1},
                 {"B", 1},
                 {"KiB", 1024},
                 {"MiB", 1048576},
                 {"GiB", 1073741824.0},
                 {"TiB", 1099511627776.0},
                 {"KB", 1e3},
                 {"MB", 1e6},
                 {"GB", 1e9},
                 {"TB", 1e12},
                 {"K", 1024},
                 {"M", 1048576},
                 {"G", 1073741824.0}};
    char *end;
    const double value = strtod(text, &end);
    while (*end == ' ')
        end++;
    for (size_t i = 0; end != text && i < sizeof units / sizeof *units; i++) {
        const double total = value * units[i].factor;
        if (strcasecmp(end, units[i].unit) == 0 && isfinite(total) && total >= 0 && total < 1e18) {
            *bytes = (size_t)total;
            return LB_STATUS_OK;
        }
    }
    return lb_error_set(error, LB_STATUS_INVALID_ARGUMENT, "%s %s: takes a size, such as 22GiB, 800MiB or 6.5GB",
                        option, text);
}
