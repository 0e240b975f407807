/* Entries in a folder on disk under a limit in bytes; the one not used for the longest time goes first.
 *
 *     lb_store *store;
 *     lb_store_open("cache/sights", limit, &store, &error);
 *     int fd = lb_store_get(store, name);                      // -1: not there, or damaged and taken away
 *     if (fd >= 0) map from LB_STORE_HEADER on, close(fd)
 *     else lb_store_put(store, name, data, n, &error);
 *     lb_store_close(store);
 *
 * An entry is a file: a header with the SHA-256 of what follows, then that. It is written under a temporary name,
 * synced and renamed, with room made for it before, so that neither a crash nor a full disk leaves half of one under
 * its name. Several processes may use one folder; a lock file keeps the limit among them. Thread-safe.
 */
#ifndef LB_MEMORY_STORE_H
#define LB_MEMORY_STORE_H

#include "lowbeam/status.h"

#include <stddef.h>

typedef struct lb_store lb_store;

enum { LB_STORE_HEADER = 128 }; /* bytes before an entry's content */

/* Makes the folder and those above it. Errors: IO, OUT_OF_MEMORY. */
lb_status lb_store_open(const char *folder, size_t limit_bytes, lb_store **store, lb_error *error);
void lb_store_close(lb_store *store); /* NULL is allowed */

/* The entry's file, read and found whole; it is the youngest now. name: letters, digits, '-' and '.', no '.' first. */
int lb_store_get(lb_store *store, const char *name);

/* Errors: DOES_NOT_FIT (larger than the limit; nothing was taken away for it), IO. */
lb_status lb_store_put(lb_store *store, const char *name, const void *data, size_t n, lb_error *error);

/* What was put under one name under another, in place of what is there; to NULL: away with it. What is not there any
 * more is of no account. */
void lb_store_rename(lb_store *store, const char *from, const char *to);

#endif
