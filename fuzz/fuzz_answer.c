/* libFuzzer entry: any bytes as what a model's tokens decoded to: valid text, and a letter among the choices or none.
 * sources: src/answer/letter.c src/answer/text.c */
#include "answer/letter.h"
#include "answer/text.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char *text = lb_text_clean((const char *)data, size);
    LB_FUZZ_ASSERT(text && !lb_text_first_broken(text) && strlen(text) <= 3 * size);
    int before = -1;
    for (int n = 2; n <= 8; n++) {
        const int letter = lb_letter_extract(text, n);
        LB_FUZZ_ASSERT(letter >= -1 && letter < n);
        if (letter >= 0) /* the letter stands in the text, in either case */
            LB_FUZZ_ASSERT(strchr(text, 'A' + letter) || strchr(text, 'a' + letter));
        LB_FUZZ_ASSERT(before < 0 || letter >= 0); /* more choices never make a text say less */
        before = letter;
    }
    char *once = lb_text_nfc(text);
    LB_FUZZ_ASSERT(once && !lb_text_first_broken(once));
    char *twice = lb_text_nfc(once);
    LB_FUZZ_ASSERT(twice && !strcmp(once, twice));
    char *again = lb_text_clean(text, strlen(text));
    LB_FUZZ_ASSERT(again && !strcmp(again, text));
    free(again);
    free(twice);
    free(once);
    free(text);
    return 0;
}
