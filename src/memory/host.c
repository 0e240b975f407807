#include "memory/host.h"

#include <stdint.h>
#include <stdio.h>

static size_t available_in_system(void) {
    FILE *file = fopen("/proc/meminfo", "re");
    unsigned long long kib = 0;
    char line[256];
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "MemAvailable: %llu kB", &kib) == 1)
            break;
    if (file)
        fclose(file);
    return (size_t)kib << 10;
}

/* "max" is no number: no limit. */
static size_t read_number(const char *path) {
    FILE *file = fopen(path, "re");
    unsigned long long value;
    const int n = file ? fscanf(file, "%llu", &value) : 0;
    if (file)
        fclose(file);
    return n == 1 ? (size_t)value : SIZE_MAX;
}

size_t lb_host_available(void) {
    size_t available = available_in_system();
    const size_t most = read_number("/sys/fs/cgroup/memory.max"), now = read_number("/sys/fs/cgroup/memory.current");
    if (most != SIZE_MAX && now != SIZE_MAX) {
        const size_t left = most > now ? most - now : 0;
        available = left < available ? left : available;
    }
    return available;
}

size_t lb_host_default_cache(void) {
    const size_t share = lb_host_available() / 4, most = (size_t)8 << 30, least = (size_t)256 << 20;
    return share > most ? most : share < least ? least : share;
}
