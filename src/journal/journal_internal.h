/* Shared by the files of src/journal: the open file, and its faults. */
#ifndef LB_JOURNAL_JOURNAL_INTERNAL_H
#define LB_JOURNAL_JOURNAL_INTERNAL_H

#include "journal/journal.h"

#include <sqlite3.h>

struct lb_journal {
    char *path;
    sqlite3 *db;
    sqlite3_stmt *append;
};

/* The message for an errno that opening, writing or renaming path gave, with the way out. */
lb_status lb_journal_system_fault(lb_error *error, const char *path, int code);

/* The message for the last failed call on the journal's database. */
lb_status lb_journal_fault(const lb_journal *journal, lb_error *error);

/* Makes what happened to the names in path's folder durable; 0, or an errno. */
int lb_journal_sync_folder(const char *path);

#endif
