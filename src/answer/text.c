#include "answer/text.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

/* The Unicode standard's table 3-7: what the second byte may be hangs on the first, which keeps out overlong forms,
 * surrogates and what lies beyond U+10FFFF. A broken sequence ends before the first byte that cannot go on. */
size_t lb_text_character(const char *bytes, size_t n, bool *broken) {
    const unsigned char *b = (const unsigned char *)bytes;
    size_t length = b[0] < 0x80 ? 1 : b[0] < 0xC2 ? 0 : b[0] < 0xE0 ? 2 : b[0] < 0xF0 ? 3 : b[0] < 0xF5 ? 4 : 0;
    unsigned char low = b[0] == 0xE0 ? 0xA0 : b[0] == 0xF0 ? 0x90 : 0x80;
    unsigned char high = b[0] == 0xED ? 0x9F : b[0] == 0xF4 ? 0x8F : 0xBF;
    *broken = !length;
    for (size_t i = 1; i < length; i++) {
        if (i >= n || b[i] < low || b[i] > high) {
            *broken = true;
            return i;
        }
        low = 0x80, high = 0xBF;
    }
    return length ? length : 1;
}

const char *lb_text_first_broken(const char *text) {
    size_t n = strlen(text);
    bool broken;
    for (size_t i = 0; i < n;) {
        size_t length = lb_text_character(text + i, n - i, &broken);
        if (broken)
            return text + i;
        i += length;
    }
    return NULL;
}

char *lb_text_decode(const char *bytes, size_t n) {
    static const char REPLACEMENT[3] = {'\xEF', '\xBF', '\xBD'};
    if (n > (SIZE_MAX - 1) / 3)
        return NULL;
    char *text = malloc(3 * n + 1), *end = text; /* the worst: each byte broken */
    if (!text)
        return NULL;
    for (size_t i = 0; i < n;) {
        bool broken;
        size_t length = lb_text_character(bytes + i, n - i, &broken);
        if (broken || !bytes[i]) {
            memcpy(end, REPLACEMENT, 3);
            end += 3;
        } else {
            memcpy(end, bytes + i, length);
            end += length;
        }
        i += length;
    }
    *end = 0;
    char *fitting = realloc(text, (size_t)(end - text) + 1);
    return fitting ? fitting : text;
}

/* str.isspace() of one character: CPython's _PyUnicode_IsWhitespace (bidirectional types WS, B, S and category Zs). */
static bool is_white(utf8proc_int32_t c) {
    return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

char *lb_text_clean(const char *bytes, size_t n) {
    char *text = lb_text_decode(bytes, n);
    if (!text)
        return NULL;
    /* One walk: where the first and behind the last character stand that are not white. */
    size_t length = strlen(text), first = length, end = length;
    for (size_t i = 0; i < length;) {
        utf8proc_int32_t c;
        i += (size_t)utf8proc_iterate((const utf8proc_uint8_t *)text + i, (utf8proc_ssize_t)(length - i), &c);
        if (is_white(c))
            continue;
        if (first == length)
            first = i - (size_t)(c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4);
        end = i;
    }
    memmove(text, text + first, end - first);
    text[end - first] = 0;
    return text;
}

/* Sorts n marks by combining class, equal ones staying in order: canonical ordering. utf8proc does it by exchanging
 * neighbours, which takes minutes for a run of a million marks; on a sorted run it has nothing to do. */
static bool order_marks(utf8proc_int32_t *marks, size_t n) {
    size_t place[257] = {0};
    utf8proc_int32_t *sorted = malloc(n * sizeof *sorted);
    if (!sorted)
        return false;
    for (size_t i = 0; i < n; i++)
        place[(utf8proc_get_property(marks[i])->combining_class & 255) + 1]++;
    for (int k = 0; k < 256; k++)
        place[k + 1] += place[k];
    for (size_t i = 0; i < n; i++)
        sorted[place[utf8proc_get_property(marks[i])->combining_class & 255]++] = marks[i];
    memcpy(marks, sorted, n * sizeof *marks);
    free(sorted);
    return true;
}

char *lb_text_nfc(const char *text) {
    const utf8proc_uint8_t *bytes = (const utf8proc_uint8_t *)text;
    size_t length = strlen(text), n = 0, run = 0, room = 4 * length + 4; /* no character decomposes into more than 4 */
    char *result = NULL;
    if (length > (size_t)1 << 30)
        return NULL;
    utf8proc_int32_t *code = malloc(room * sizeof *code);
    for (size_t i = 0; code && i < length;) {
        utf8proc_int32_t c;
        utf8proc_ssize_t used = utf8proc_iterate(bytes + i, (utf8proc_ssize_t)(length - i), &c), made = -1;
        if (used > 0)
            made = utf8proc_decompose_char(c, code + n, (utf8proc_ssize_t)(room - n),
                                           UTF8PROC_STABLE | UTF8PROC_DECOMPOSE, NULL);
        if (made < 0 || (size_t)made > room - n)
            goto cleanup;
        i += (size_t)used;
        n += (size_t)made;
    }
    for (size_t i = 0; code && i <= n; i++) {
        if (i < n && utf8proc_get_property(code[i])->combining_class) {
            run++;
            continue;
        }
        if (run > 1 && !order_marks(code + i - run, run))
            goto cleanup;
        run = 0;
    }
    /* Composes, and encodes in place. */
    if (code && utf8proc_reencode(code, (utf8proc_ssize_t)n, UTF8PROC_STABLE | UTF8PROC_COMPOSE) >= 0)
        result = strdup((const char *)code);
cleanup:
    free(code);
    return result;
}
