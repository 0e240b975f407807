/* Sizes as users write them. */
#include "memory/plan.h"

#include "base/error.h"

#include <math.h>
#include <stdio.h>
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

lb_status lb_plan_vram_parse(const char *text, size_t *vram, int *n, lb_error *error) {
    *n = 0;
    for (const char *at = text; at;) {
        const char *comma = strchr(at, ',');
        char one[64];
        snprintf(one, sizeof one, "%.*s", (int)(comma ? comma - at : (long)strlen(at)), at);
        if (*n == LB_DEVICES_MAX)
            return lb_error_set(error, LB_STATUS_INVALID_ARGUMENT, "--vram %s: more than %d devices", text,
                                LB_DEVICES_MAX);
        lb_status status = lb_bytes_parse("--vram", one, &vram[(*n)++], error);
        if (status != LB_STATUS_OK)
            return status;
        at = comma ? comma + 1 : NULL;
    }
    return LB_STATUS_OK;
}

lb_status lb_plan_allow_parse(const char *text, unsigned *allow, lb_error *error) {
    static const struct {
        const char *word;
        unsigned bit;
    } words[] = {{"kv-q8", LB_ALLOW_KV_Q8},
                 {"weights-q8", LB_ALLOW_WEIGHTS_Q8},
                 {"weights-q4", LB_ALLOW_WEIGHTS_Q4},
                 {"fewer-tiles", LB_ALLOW_FEWER_TILES},
                 {"fewer-crops", LB_ALLOW_FEWER_CROPS}};
    for (const char *at = text; at;) {
        const char *comma = strchr(at, ',');
        const size_t length = comma ? (size_t)(comma - at) : strlen(at);
        size_t i = 0;
        while (i < sizeof words / sizeof *words &&
               !(strlen(words[i].word) == length && strncmp(words[i].word, at, length) == 0))
            i++;
        if (i == sizeof words / sizeof *words)
            return lb_error_set(error, LB_STATUS_INVALID_ARGUMENT,
                                "--allow %.*s: takes kv-q8, weights-q8, weights-q4, fewer-tiles, fewer-crops, with "
                                "commas between",
                                (int)length, at);
        *allow |= words[i].bit;
        at = comma ? comma + 1 : NULL;
    }
    return LB_STATUS_OK;
}
