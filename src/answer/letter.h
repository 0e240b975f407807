/* From the model's text to a letter.
 *
 *     char *text = lb_text_clean(bytes, n_bytes);
 *     int letter = lb_letter_extract(text, question->n_choices);
 *     bool fallback = letter < 0;                                   // answer A, marked
 */
#ifndef LB_ANSWER_LETTER_H
#define LB_ANSWER_LETTER_H

#include "answer/text.h"

/* Which choice (0 for A ...) the text names, by the first of these rules that gives a letter within n_choices (2 to 8);
 * -1 when none does (the caller answers A and marks the fallback). text: UTF-8.
 *  1. the text begins with a letter in either case, and no word character follows it;
 *  2. such a letter, with no word character before it either, is followed by '.';
 *  3. by ')';
 *  4. by ':';
 *  5. a capital letter stands alone, without a word character on either side.
 * A word character is a letter, digit or underscore of any script. A combining mark belongs to the character before it:
 * 'A' with a circumflex after it is the letter 'Â', not 'A'. Within a rule the first place in the text counts. */
int lb_letter_extract(const char *text, int n_choices);

#endif
