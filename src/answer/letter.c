#include "answer/letter.h"

#include <stdint.h>
#include <string.h>
#include <utf8proc.h>

/* One character with the marks that belong to it: all that the rules look at. */
typedef struct unit {
    char lone;    /* the character when it is ASCII and bears no mark; else 0 */
    bool is_word; /* letter, digit or underscore of any script */
} unit;

/* Marks alone never make a word character, but they change the one before them. */
static bool is_mark(utf8proc_category_t category) {
    return category == UTF8PROC_CATEGORY_MN || category == UTF8PROC_CATEGORY_MC || category == UTF8PROC_CATEGORY_ME;
}

static bool is_word(utf8proc_int32_t c, utf8proc_category_t category) {
    return c == '_' || (category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO) ||
           (category >= UTF8PROC_CATEGORY_ND && category <= UTF8PROC_CATEGORY_NO);
}

/* Takes the next unit off the text; false at its end. Broken UTF-8 counts as a sign, as U+FFFD would. */
static bool next_unit(const char **text, size_t *n, unit *out) {
    for (bool first = true;; first = false) {
        utf8proc_int32_t c;
        if (!*n)
            return !first;
        utf8proc_ssize_t used = utf8proc_iterate((const utf8proc_uint8_t *)*text, (utf8proc_ssize_t)*n, &c);
        if (used <= 0)
            c = 0xFFFD, used = 1;
        utf8proc_category_t category = utf8proc_category(c);
        if (!first && !is_mark(category))
            return true;
        if (first)
            *out = (unit){.lone = c < 0x80 ? (char)c : 0, .is_word = is_word(c, category)};
        else
            out->lone = 0;
        *text += used;
        *n -= (size_t)used;
    }
}

int lb_letter_extract(const char *text, int n_choices) {
    static const unit NOTHING = {0};
    enum { BEGINS, DOT, PARENTHESIS, COLON, ALONE, N_RULES };
    static const char sign[N_RULES] = {[DOT] = '.', [PARENTHESIS] = ')', [COLON] = ':'};
    int found[N_RULES] = {-1, -1, -1, -1, -1};
    size_t n = strlen(text);
    unit before = NOTHING, here = NOTHING, after = NOTHING;
    bool more = next_unit(&text, &n, &here), at_start = true;
    while (more) {
        more = next_unit(&text, &n, &after);
        if (!more)
            after = NOTHING;
        bool is_capital = here.lone >= 'A' && here.lone <= 'Z';
        int letter = (here.lone | 0x20) - 'a';
        if ((is_capital || (here.lone >= 'a' && here.lone <= 'z')) && letter < n_choices && !before.is_word &&
            !after.is_word) {
            if (at_start)
                return letter; /* BEGINS comes before all others */
            for (int rule = DOT; rule < N_RULES; rule++)
                if (found[rule] < 0 && (rule == ALONE ? is_capital : after.lone == sign[rule]))
                    found[rule] = letter;
        }
        before = here;
        here = after;
        at_start = false;
    }
    for (int rule = DOT; rule < N_RULES; rule++)
        if (found[rule] >= 0)
            return found[rule];
    return -1;
}
