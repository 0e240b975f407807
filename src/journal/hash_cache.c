/* The hashes that the cache folder keeps; see fingerprint.h. */
#include "base/file.h"
#include "journal/fingerprint.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_FILE_BYTES = 1 << 20 }; /* thousands of files; then it begins anew */

/* The file's name; false: there is no folder to keep it in. make: makes the folder. */
static bool cache_file(char name[PATH_MAX], bool make) {
    static const char FILE_NAME[] = "/hashes";
    if (!lb_user_cache(name, PATH_MAX - sizeof FILE_NAME))
        return false;
    if (make)
        (void)lb_folder_make(name, NULL); /* else the file cannot be opened */
    strcat(name, FILE_NAME);
    return true;
}

/* A line for the file at path as it is now, without its hash. A name with a line end would be two lines. */
static bool line_end(const char *path, const lb_fingerprint *f, char *text, size_t n) {
    char real[PATH_MAX];
    if (!realpath(path, real) || strchr(real, '\n'))
        return false;
    int length =
        snprintf(text, n, " %" PRId64 " %" PRId64 " %" PRId64 " %s\n", f->n_bytes, f->mtime_ns, f->ctime_ns, real);
    return length > 0 && (size_t)length < n;
}

bool lb_fingerprint_recall(const char *path, lb_fingerprint *fingerprint) {
    char name[PATH_MAX], wanted[PATH_MAX + 96];
    if (!cache_file(name, false) || !line_end(path, fingerprint, wanted, sizeof wanted))
        return false;
    FILE *file = fopen(name, "re");
    if (!file)
        return false;
    char *line = NULL;
    size_t capacity = 0;
    bool found = false;
    while (getline(&line, &capacity, file) > 0) {
        if (strlen(line) < LB_SHA256_HEX || strcmp(line + LB_SHA256_HEX - 1, wanted) != 0 ||
            strspn(line, "0123456789abcdef") != LB_SHA256_HEX - 1)
            continue;
        memcpy(fingerprint->sha256, line, LB_SHA256_HEX - 1);
        fingerprint->sha256[LB_SHA256_HEX - 1] = 0;
        found = true;
    }
    free(line);
    fclose(file);
    return found;
}

void lb_fingerprint_remember(const char *path, const lb_fingerprint *fingerprint) {
    char name[PATH_MAX], end[PATH_MAX + 96], line[PATH_MAX + 96 + LB_SHA256_HEX];
    struct stat st;
    if (!fingerprint->sha256[0] || !line_end(path, fingerprint, end, sizeof end) || !cache_file(name, true))
        return;
    int n = snprintf(line, sizeof line, "%s%s", fingerprint->sha256, end);
    bool full = stat(name, &st) == 0 && st.st_size > MAX_FILE_BYTES;
    int fd = open(name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | (full ? O_TRUNC : 0), 0666);
    if (fd < 0)
        return;
    /* one write: lines of several runs do not mix; one that was cut short matches no file */
    ssize_t written = write(fd, line, (size_t)n);
    (void)written;
    close(fd);
}
