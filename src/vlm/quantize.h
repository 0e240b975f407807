/* 8- and 4-bit language models, made once from a file of higher precision by llama.cpp's own quantizer.
 *
 *     char made[PATH_MAX];
 *     lb_quantize_find("InternVL3-8B.gguf", 8, cache_dir, made, sizeof made);      // where it is or will be
 *     lb_quantize_make("InternVL3-8B.gguf", made, 8, n_threads, &error);           // does nothing when it is there
 *
 * 8: all matrices in q8_0. 4: in q4_K, the output in q6_K, and the token embeddings, which stay on the host, in q8_0.
 */
#ifndef LB_VLM_QUANTIZE_H
#define LB_VLM_QUANTIZE_H

#include "lowbeam/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Path of the quantized file: <folder>/<name of the model>-lowbeam-q8_0.gguf (-q4_k.gguf), beside the model where
 * cache_dir is NULL and its folder can be written to, else in cache_dir or the user's cache folder. The name carries a
 * mark of the model's size and time, so that another model of the same name gets another file. true: it is there.
 * made: [n]. */
bool lb_quantize_find(const char *model, int bits, const char *cache_dir, char *made, size_t n);

/* Writes it under another name first, so that a file of that name is complete; the folder of `made`, which names one,
 * is made where it is missing. Takes as long as reading the model and some minutes of all cores for one of 8B. Errors:
 * IO (no room, naming the bytes; a folder that cannot be written), FORMAT (already quantized: has less than 16 bits),
 * BACKEND. */
lb_status lb_quantize_make(const char *model, const char *made, int bits, int n_threads, lb_error *error);

/* The ggml type of a matrix whose rows have n values. */
int lb_quantize_type(int bits, int64_t n, bool is_output);

#endif
