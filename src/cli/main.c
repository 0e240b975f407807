#include "cli/cli.h"

#include "base/log.h"
#include "run/child.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

atomic_bool lb_cli_cancelled;

static void on_signal(int number) {
    (void)number;
    if (lb_cli_cancelled)
        _exit(LB_EXIT_INTERRUPTED);
    lb_cli_cancelled = true;
}

void lb_cli_catch_signals(void) {
    struct sigaction action = {.sa_handler = on_signal}; /* without SA_RESTART: waits are to be interrupted */
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGHUP, &action, NULL); /* the terminal was closed: what is answered still becomes a CSV */
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a file at its limit is an error of that write, told like a full disk */
}

static void write_log(lb_log_level level, const char *stage, const char *message, void *user) {
    const lb_log_level *least = user;
    if (level >= *least)
        fprintf(stderr, "%s: %s\n", stage, message);
}

void lb_cli_log(bool verbose) {
    static lb_log_level least;
    least = verbose ? LB_LOG_INFO : LB_LOG_WARN;
    lb_log_set(write_log, &least);
    if (verbose)
        setenv("LOWBEAM_LOG", "info", 0); /* the engine child reads it */
}

int lb_cli_fail(const char *message, int status) {
    fprintf(stderr, "lowbeam: %s\n", message);
    return status;
}

int lb_cli_begin(const lb_option *options, size_t n, int argc, char **argv, const char *usage, const char *example,
                 const char *missing, const char **operand) {
    lb_error error = {0};
    int n_operands;
    bool help;
    if (lb_options_parse(options, n, argc, argv, operand, &n_operands, 1, &help, &error) != LB_STATUS_OK)
        return lb_cli_fail(error.message, LB_EXIT_USAGE);
    if (help) {
        fputs(usage, stdout);
        lb_options_print(options, n);
        if (example)
            printf("\nExample: %s", example);
        return LB_EXIT_OK;
    }
    return n_operands == 1 ? -1 : lb_cli_fail(missing, LB_EXIT_USAGE);
}

static void print_help(FILE *to) {
    fputs("lowbeam answers multiple-choice questions about dashcam video, on your machine.\n"
          "\n"
          "  lowbeam answer QUESTIONS.json   answer the questions of a file, write a CSV\n"
          "  lowbeam export RUN.db           make the CSV, or JSONL, again from a run's journal\n"
          "  lowbeam plan QUESTIONS.json     what answer would hold in memory, and whether it fits\n"
          "  lowbeam frames VIDEO            show the frames and tiles that the model would see\n"
          "  lowbeam detect IMAGE|VIDEO      find traffic signs, cars, ... and draw, list or save their boxes\n"
          "  lowbeam convert HF_DIR -o FILE  Grounding DINO's published folder to the file that the detector reads\n"
          "\n"
          "lowbeam VERB --help tells the options of a verb.\n"
          "\n"
          "A first run, with the two GGUF files of an InternVL3 checkpoint:\n"
          "  lowbeam answer questions.json --videos clips --model InternVL3-8B.gguf --mmproj mmproj-InternVL3-8B.gguf\n"
          "\n"
          "Exit status: 0 every question answered by the model; 1 nothing could be done; 2 wrong usage;\n"
          "3 finished, some questions answered by fallback; 4 does not fit; 130 interrupted.\n",
          to);
}

/* A standard stream that was closed leaves its number to the next file that is opened, and what is printed would go
 * there: into the journal, or to the engine child. */
static void fill_standard_streams(void) {
    int fd;
    while ((fd = open("/dev/null", O_RDWR)) >= 0 && fd <= STDERR_FILENO)
        ;
    if (fd > STDERR_FILENO)
        close(fd);
}

int main(int argc, char **argv) {
    fill_standard_streams();
    if (argc == 3 && strcmp(argv[1], LB_CHILD_VERB) == 0)
        return lb_child_main(atoi(argv[2]));
    if (argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
        print_help(argc < 2 ? stderr : stdout);
        return argc < 2 ? LB_EXIT_USAGE : LB_EXIT_OK;
    }
    if (strcmp(argv[1], "--version") == 0) {
        puts("lowbeam " LOWBEAM_VERSION);
        return LB_EXIT_OK;
    }
    if (strcmp(argv[1], "answer") == 0)
        return lb_cli_answer(argc - 1, argv + 1);
    if (strcmp(argv[1], "export") == 0)
        return lb_cli_export(argc - 1, argv + 1);
    if (strcmp(argv[1], "plan") == 0)
        return lb_cli_plan(argc - 1, argv + 1);
    if (strcmp(argv[1], "frames") == 0)
        return lb_cli_frames(argc - 1, argv + 1);
    if (strcmp(argv[1], "detect") == 0)
        return lb_cli_detect(argc - 1, argv + 1);
    if (strcmp(argv[1], "convert") == 0)
        return lb_cli_convert(argc - 1, argv + 1);
    fprintf(stderr, "lowbeam: %s: there is no such verb; see lowbeam --help\n", argv[1]);
    return LB_EXIT_USAGE;
}
