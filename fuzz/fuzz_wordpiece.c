/* libFuzzer entry: any bytes as a list of labels, one a line, and as a vocabulary.
 * sources: src/detector/wordpiece.c src/detector/wordpiece_words.c src/detector/labels.c src/nn/gguf_file.c
 * sources: src/nn/log.c
 */
#include "detector/labels.h"
#include "detector/wordpiece.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char words[] = "[UNK]\n[CLS]\n[SEP]\n.\n?\ncar\ntraf\n##fic\nsign\n##s\na\n##b\n";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static lb_wordpiece *tokenizer;
    lb_wordpiece *other;
    if (!tokenizer && lb_wordpiece_from_vocab("words", words, sizeof words - 1, &tokenizer, NULL) != LB_STATUS_OK)
        abort();
    if (lb_wordpiece_from_vocab("fuzz", (const char *)data, size, &other, NULL) == LB_STATUS_OK)
        lb_wordpiece_free(other);
    char *text = malloc(size + 1);
    if (!text)
        return 0;
    memcpy(text, data, size);
    text[size] = 0;
    const char *label[16];
    int n = 0;
    for (char *rest = text, *one; n < 16 && (one = strsep(&rest, "\n"));)
        label[n++] = one;
    lb_labels *labels;
    if (lb_labels_create(tokenizer, label, n, 64, &labels, NULL) == LB_STATUS_OK) {
        char *decoded;
        if (labels->n_tokens > 64 ||
            lb_wordpiece_decode(tokenizer, labels->token, (size_t)labels->n_tokens, &decoded, NULL) != LB_STATUS_OK)
            abort();
        free(decoded);
        lb_labels_free(labels);
    }
    free(text);
    return 0;
}
