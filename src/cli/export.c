#include "base/error.h"
#include "cli/cli.h"
#include "cli/options.h"
#include "journal/journal.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

static bool ends_with(const char *text, const char *end) {
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcasecmp(text + n - m, end) == 0;
}

int lb_cli_export(int argc, char **argv) {
    const char *out = NULL, *format = NULL, *columns = NULL;
    const lb_option options[] = {
        {"out", 'o', NULL, LB_OPTION_TEXT, &out, 0, 0, "FILE", "where it goes; default: standard output"},
        {"format", 0, NULL, LB_OPTION_TEXT, &format, 0, 0, "csv|jsonl",
         "default: jsonl for a FILE that ends in .jsonl, else csv"},
        {"columns", 0, NULL, LB_OPTION_TEXT, &columns, 0, 0, "LIST",
         "columns in their order; default: id,answer,raw_response,prompt (csv), all (jsonl)"},
    };
    const size_t n_options = sizeof options / sizeof *options;
    lb_error error = {0};
    const char *operand;
    const int ended = lb_cli_begin(
        options, n_options, argc, argv,
        "lowbeam export RUN.db [options]\n"
        "\n"
        "Writes the answers that a run's journal holds, as CSV or as JSONL (an object a line). The journal is "
        "only\n"
        "read, also while the run goes on. docs/csv.md tells the columns.\n"
        "\n",
        "what went wrong, and how sure the model was\n"
        "  lowbeam export run.db --format jsonl --columns id,answer,error,letter_logits\n",
        "export: which journal? lowbeam export RUN.db; see lowbeam export --help", &operand);
    if (ended >= 0)
        return ended;
    if (format && strcmp(format, "csv") != 0 && strcmp(format, "jsonl") != 0)
        return lb_cli_fail("--format: takes csv or jsonl", LB_EXIT_USAGE);
    if (lb_journal_check_columns(columns, &error) != LB_STATUS_OK)
        return lb_cli_fail(error.message, LB_EXIT_USAGE);
    const bool jsonl = format ? strcmp(format, "jsonl") == 0 : out && ends_with(out, ".jsonl");
    const char *path = out && strcmp(out, "-") != 0 ? out : NULL;
    lb_cli_catch_signals();
    lb_journal *journal;
    lb_status status = lb_journal_open_read_only(operand, &journal, &error);
    if (status == LB_STATUS_OK)
        status = lb_journal_export(journal, path, jsonl ? LB_JOURNAL_JSONL : LB_JOURNAL_CSV, columns, &error);
    lb_journal_close(journal);
    return status == LB_STATUS_OK ? LB_EXIT_OK : lb_cli_fail(error.message, LB_EXIT_NOTHING);
}
