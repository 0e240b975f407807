/* Tensor names of a Grounding DINO checkpoint (transformers' state dict), shortened for GGUF: ggml keeps 63 bytes.
 *
 *     char name[LB_GDINO_NAME_BYTES];
 *     lb_gdino_name("model.text_backbone.encoder.layer.0.attention.self.query.weight", name, &error);
 *     // "bert.encoder.layer.0.attn.query.weight"
 *
 * The table, also in docs/grounding-dino.md; each replacement is made once, in this order:
 *   at the front  model.backbone.conv_encoder.model.  swin.
 *                 model.text_backbone.                bert.
 *                 model.encoder.layers.               enc.
 *                 model.decoder.layers.               dec.
 *                 model.decoder.                      dec.
 *                 model.                              (nothing)
 *   in swin.      encoder.layers.                     (nothing)
 *   in swin., bert.  relative_position_bias_table     rel_pos_table
 *                 attention.self.                     attn.
 *                 attention.output.dense              attn_out
 *                 intermediate.dense                  up
 *                 output.dense                        down
 */
#ifndef LB_DETECTOR_NAMES_H
#define LB_DETECTOR_NAMES_H

#include "lowbeam/status.h"

enum { LB_GDINO_NAME_BYTES = 64 };

/* Two names of a checkpoint that differ give two names that differ. Errors: UNSUPPORTED (still above 63 bytes). */
lb_status lb_gdino_name(const char *checkpoint_name, char out[LB_GDINO_NAME_BYTES], lb_error *error);

#endif
