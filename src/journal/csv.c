/* The two forms that answers leave a journal in: a line of CSV, a line of JSON. */
#include "journal/journal_internal.h"

#include <string.h>

/* RFC 4180. An empty field is quoted, so that a line of one column never looks like no line, and so is one with blanks
 * at its ends, which some readers take off. */
static void write_field(FILE *file, const char *text) {
    size_t n = strlen(text);
    if (n && !strpbrk(text, ",\"\r\n") && text[0] != ' ' && text[0] != '\t' && text[n - 1] != ' ' &&
        text[n - 1] != '\t') {
        fputs(text, file);
        return;
    }
    putc('"', file);
    for (; *text; text++) {
        if (*text == '"')
            putc('"', file);
        putc(*text, file);
    }
    putc('"', file);
}

void lb_csv_write_line(FILE *file, sqlite3_stmt *row, const int *columns, int n) {
    for (int i = 0; i < n; i++) {
        const char *text = row ? (const char *)sqlite3_column_text(row, i) : lb_journal_column[columns[i]].name;
        if (i)
            putc(',', file);
        write_field(file, text ? text : "");
    }
    fputs("\r\n", file);
}

/* The text is valid UTF-8 (what enters the journal is repaired): only quotes, backslashes and control characters need
 * an escape. U+2028 and U+2029 are line ends to JavaScript and to Python's splitlines: those too. */
static void write_string(FILE *file, const char *text) {
    putc('"', file);
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\')
            fprintf(file, "\\%c", c);
        else if (c == '\n')
            fputs("\\n", file);
        else if (c == '\r')
            fputs("\\r", file);
        else if (c == '\t')
            fputs("\\t", file);
        else if (c < 0x20 || c == 0x7f)
            fprintf(file, "\\u%04x", c);
        else if (c == 0xC2 && (unsigned char)text[1] == 0x85) { /* U+0085, likewise */
            fputs("\\u0085", file);
            text++;
        } else if (c == 0xE2 && (unsigned char)text[1] == 0x80 && ((unsigned char)text[2] & 0xFE) == 0xA8) {
            fprintf(file, "\\u%04x", 0x2000 | ((unsigned char)text[2] & 0x3F));
            text += 2;
        } else
            putc(c, file);
    }
    putc('"', file);
}

void lb_jsonl_write_line(FILE *file, sqlite3_stmt *row, const int *columns, int n) {
    for (int i = 0; i < n; i++) {
        const lb_column *column = &lb_journal_column[columns[i]];
        const char *text = (const char *)sqlite3_column_text(row, i);
        fprintf(file, "%s\"%s\": ", i ? ", " : "{", column->name);
        if (!text)
            fputs("null", file);
        else if (column->kind == LB_COLUMN_TEXT)
            write_string(file, text);
        else if (column->kind == LB_COLUMN_FLAG)
            fputs(sqlite3_column_int(row, i) ? "true" : "false", file);
        else if (column->kind == LB_COLUMN_NUMBER && sqlite3_column_type(row, i) == SQLITE_FLOAT)
            fprintf(file, "%.17g", sqlite3_column_double(row, i)); /* reads back as the same number */
        else
            fputs(text, file);
    }
    fputs("}\n", file);
}
