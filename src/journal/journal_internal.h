/* Shared by the files of src/journal: the open file, its faults, its columns. */
#ifndef LB_JOURNAL_JOURNAL_INTERNAL_H
#define LB_JOURNAL_JOURNAL_INTERNAL_H

#include "journal/journal.h"

#include <sqlite3.h>
#include <stdio.h>

struct lb_journal {
    char *path;
    sqlite3 *db;
    sqlite3_stmt *append; /* NULL: opened for reading alone */
    int lock_fd;          /* holds the lock; closed after db, since closing it would release SQLite's locks too */
};

enum { LB_JOURNAL_VERSION = 4, LB_JOURNAL_APPLICATION = 0x6c626a6e /* "lbjn" */ };

/* The answers' statement, with a parameter a column in the table's order. */
extern const char lb_journal_append_sql[];

/* A handle without a database, for lb_journal_close. */
lb_status lb_journal_new(const char *path, lb_journal **journal, lb_error *error);

/* The file as it is named, whatever its name. Returns SQLite's code. */
int lb_journal_open_database(const char *path, int flags, sqlite3 **db);

/* Locks the file and opens it; then makes answers durable, and lb_journal_append ready. */
lb_status lb_journal_open_for_writing(lb_journal *journal, lb_error *error);
lb_status lb_journal_prepare_append(lb_journal *journal, lb_error *error);

/* Inserts name and value pairs, NULL-terminated, into the table of settings. */
lb_status lb_journal_write_settings(lb_journal *journal, const char *const *settings, lb_error *error);

/* Binds text (NULL: NULL). Broken UTF-8, such as a path in an error's text may hold, would make the whole CSV
 * unreadable: it is repaired. */
void lb_journal_bind_text(sqlite3_stmt *statement, int column, const char *text, bool *out_of_memory);

/* A new empty file in path's folder, by a short name: path's own may be as long as names can be. Gives the descriptor
 * and the name, which the caller frees; -1 with errno. */
int lb_journal_open_temporary(const char *path, char **name);

/* The columns of the table of answers, and how each is written. */
typedef enum lb_column_kind { LB_COLUMN_TEXT, LB_COLUMN_NUMBER, LB_COLUMN_FLAG, LB_COLUMN_JSON } lb_column_kind;
typedef struct lb_column {
    const char *name;
    lb_column_kind kind;
} lb_column;
extern const lb_column lb_journal_column[];
enum { LB_JOURNAL_COLUMNS = 22, LB_JOURNAL_CSV_COLUMNS = 4 /* the first so many are the CSV's */ };

/* One line; columns[i] is the i-th of the row's values. What goes wrong shows in ferror. CSV's header: row NULL. */
void lb_csv_write_line(FILE *file, sqlite3_stmt *row, const int *columns, int n);
void lb_jsonl_write_line(FILE *file, sqlite3_stmt *row, const int *columns, int n);

/* The message for an errno that opening, writing or renaming path gave, with the way out. */
lb_status lb_journal_system_fault(lb_error *error, const char *path, int code);

/* The message for the last failed call on the journal's database. */
lb_status lb_journal_fault(const lb_journal *journal, lb_error *error);

/* Makes what happened to the names in path's folder durable; 0, or an errno. */
int lb_journal_sync_folder(const char *path);

#endif
