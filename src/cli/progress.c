#include "cli/progress.h"

#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

lb_progress lb_progress_begin(bool verbose) {
    return (lb_progress){.terminal = isatty(STDERR_FILENO) == 1, .last_s = -1e9, .verbose = verbose};
}

void lb_progress_clear(lb_progress *progress) {
    if (progress->line_open)
        fputs("\r\033[K", stderr);
    progress->line_open = false;
}

void lb_progress_vram(const char *when, size_t allocated, size_t reserved) {
    const double gb = (double)(1 << 30);
    printf("[VRAM %s] Allocated: %.2fGB | Reserved: %.2fGB\n", when, (double)allocated / gb, (double)reserved / gb);
    fflush(stdout);
}

static void show_fault(const char *message, void *user) {
    lb_progress_clear(user);
    fprintf(stderr, "lowbeam: %s\n", message);
}

static void show_warning(const char *message, void *user) {
    lb_progress_clear(user);
    fprintf(stderr, "lowbeam: %s\n", message);
}

/* Ids and paths are a stranger's: what would move the cursor becomes '?'. A character cut in two at the front goes. */
static void put_plain(const char *text) {
    while (((unsigned char)*text & 0xC0) == 0x80)
        text++;
    for (; *text; text++) {
        const unsigned char byte = (unsigned char)text[0], next = (unsigned char)text[1];
        const bool is_c1 = byte == 0xC2 && next >= 0x80 && next < 0xA0; /* U+0080 to U+009F */
        text += is_c1;
        putc(byte < 0x20 || byte == 0x7f || is_c1 ? '?' : byte, stderr);
    }
}

static void show_resumed(size_t n_stored, size_t n_again, size_t n_all, void *user) {
    lb_progress *p = user;
    p->n_resumed = n_stored;
    printf("resumed %zu of %zu", n_stored, n_all);
    if (n_again)
        printf(" (%zu that failed %s asked again)", n_again, n_again == 1 ? "is" : "are");
    printf("\n");
    fflush(stdout);
}

static void show_loading(void *user) {
    lb_progress *p = user;
    fprintf(stderr, "Loading the models ...%s", p->terminal ? "" : "\n");
    p->line_open = p->terminal;
}

static void show_loaded(const lb_child_state *state, void *user) {
    lb_progress_clear(user);
    printf("Device: %s (%s)\n", state->device_description, state->device);
    lb_progress_vram("After InternVL3 model loaded", state->model_allocated_bytes, state->model_reserved_bytes);
    if (state->shortest_edge > 0)
        lb_progress_vram("After Grounding DINO model loaded", state->allocated_bytes, state->reserved_bytes);
    lb_progress_vram("Start of inference", state->allocated_bytes, state->reserved_bytes);
}

static void show_joined(int number, const lb_child_state *state, void *user) {
    lb_progress_clear(user);
    printf("Engine %d: %s (%s)\n", number, state->device_description, state->device);
    fflush(stdout);
}

/* All of the table with --verbose; else the lines that say how it ends and what is done to get there. */
void lb_progress_planned(const lb_child_state *state, void *user) {
    lb_progress *p = user;
    lb_progress_clear(p);
    if (!state->plan_text)
        return;
    if (p->verbose || !state->fits) {
        fputs(state->plan_text, stderr);
        return;
    }
    for (const char *line = state->plan_text; *line;) {
        const char *end = strchr(line, '\n');
        const int n = end ? (int)(end - line) : (int)strlen(line);
        if (strncmp(line, "  peak ", 7) == 0 || strncmp(line, "To fit: ", 8) == 0)
            printf("Memory plan: %.*s\n", line[0] == ' ' ? n - 2 : n, line[0] == ' ' ? line + 2 : line);
        line = end ? end + 1 : line + n;
    }
}

static void show_memory(const char *text, const char *json, void *user) {
    (void)json;
    lb_progress_clear(user);
    fputs(text, stdout);
}

static void format_time(double seconds, char *out, size_t n) {
    long s = (long)(seconds + 0.5);
    if (s >= 3600)
        snprintf(out, n, "%ldh%02ldm", s / 3600, s / 60 % 60);
    else if (s >= 60)
        snprintf(out, n, "%ldm%02lds", s / 60, s % 60);
    else
        snprintf(out, n, "%lds", s);
}

/* Room for a path in the terminal's line: a wrapped line cannot be written over. */
static int columns_left(size_t used) {
    struct winsize size;
    int columns = ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
    return columns - (int)used - 1 > 0 ? columns - (int)used - 1 : 0;
}

static void show_answered(size_t n_done, size_t n_all, const lb_journal_record *record, const char *video,
                          const lb_child_state *state, double seconds, void *user) {
    lb_progress *p = user;
    p->n_done = n_done;
    if (record->error) {
        lb_progress_clear(p);
        fputs("lowbeam: question ", stderr);
        put_plain(record->id);
        fprintf(stderr, ": %s\n", record->error);
    }
    if (state && n_done % 10 == 0) {
        char when[64];
        snprintf(when, sizeof when, "After %zu questions", n_done);
        lb_progress_clear(p);
        lb_progress_vram(when, state->allocated_bytes, state->reserved_bytes);
    }
    double rate = seconds > 0 ? (double)(n_done - p->n_resumed) / seconds : 0;
    /* a log wants a line now and then, a terminal a living one */
    double wait_s = p->terminal ? 0.1 : 10;
    if (n_done < n_all && seconds - p->last_s < wait_s)
        return;
    p->last_s = seconds;
    char left[32], line[256];
    format_time(rate > 0 ? (double)(n_all - n_done) / rate : 0, left, sizeof left);
    snprintf(line, sizeof line, "%zu/%zu questions, %.2f a second, %s left, ", n_done, n_all, rate, left);
    if (p->terminal) {
        int room = columns_left(strlen(line)), n = (int)strlen(video ? video : "");
        fprintf(stderr, "\r\033[K%s", line);
        put_plain(video ? video + (n > room ? n - room : 0) : "");
        p->line_open = true;
    } else {
        fputs(line, stderr);
        put_plain(video ? video : "");
        putc('\n', stderr);
    }
    if (n_done == n_all)
        lb_progress_clear(p);
}

lb_run_observer lb_progress_observer(lb_progress *progress) {
    return (lb_run_observer){.fault = show_fault,
                             .resumed = show_resumed,
                             .loading = show_loading,
                             .loaded = show_loaded,
                             .joined = show_joined,
                             .answered = show_answered,
                             .warning = show_warning,
                             .memory = show_memory,
                             .user = progress};
}
