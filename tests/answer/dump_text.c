/* What src/answer makes of bytes, for tests/checks/check_text.py.
 *
 * stdin, as often as wanted: uint32 operation, uint32 n, n bytes.
 * stdout: uint32 length and so many bytes; length 0xffffffff: NULL.
 *   operation 0: lb_text_clean
 *   operation 1: lb_text_nfc
 *   operation 2 to 8: lb_letter_extract for so many choices, as one signed byte
 */
#include "answer/letter.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void write_result(const char *bytes, uint32_t n) {
    if (fwrite(&n, 4, 1, stdout) != 1 || (bytes && fwrite(bytes, 1, n, stdout) != n))
        exit(1);
}

int main(void) {
    uint32_t head[2];
    while (fread(head, 4, 2, stdin) == 2) {
        char *bytes = malloc((size_t)head[1] + 1), *text = NULL;
        if (!bytes || fread(bytes, 1, head[1], stdin) != head[1])
            return 1;
        bytes[head[1]] = 0;
        if (head[0] < 2) {
            text = head[0] ? lb_text_nfc(bytes) : lb_text_clean(bytes, head[1]);
            write_result(text, text ? (uint32_t)strlen(text) : UINT32_MAX);
        } else {
            signed char letter = (signed char)lb_letter_extract(bytes, (int)head[0]);
            write_result((const char *)&letter, 1);
        }
        free(text);
        free(bytes);
        fflush(stdout);
    }
    return 0;
}
