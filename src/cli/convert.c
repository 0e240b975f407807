#include "detector/convert.h"
#include "cli/cli.h"
#include "cli/options.h"

#include <stdio.h>
#include <string.h>

int lb_cli_convert(int argc, char **argv) {
    const char *out = NULL, *type_name = "f16";
    const lb_option options[] = {
        {"output", 'o', "out", LB_OPTION_TEXT, &out, 0, 0, "DET.gguf", "the file to write"},
        {"type", 't', NULL, LB_OPTION_TEXT, &type_name, 0, 0, "TYPE",
         "of the large matrices: f16, f32, q8_0 (which may change detections) or f16-exact: f16 in the file, f32 once "
         "loaded"},
    };
    static const struct {
        const char *name;
        lb_convert_type type;
    } types[] = {{"f16", LB_CONVERT_F16},
                 {"f32", LB_CONVERT_F32},
                 {"q8_0", LB_CONVERT_Q8_0},
                 {"f16-exact", LB_CONVERT_F16_EXACT}};
    const size_t n_options = sizeof options / sizeof *options, n_types = sizeof types / sizeof *types;
    lb_error error = {0};
    const char *operand;
    const int ended = lb_cli_begin(
        options, n_options, argc, argv,
        "lowbeam convert HF_DIR -o DET.gguf [options]\n\nGrounding DINO as IDEA-Research publishes it (a folder "
        "with config.json, model.safetensors, vocab.txt\nand preprocessor_config.json) to the one file that "
        "lowbeam's detector reads.\n\n",
        NULL, "convert: lowbeam convert HF_DIR -o DET.gguf; see lowbeam convert --help", &operand);
    if (ended >= 0)
        return ended;
    if (!out)
        return lb_cli_fail("convert: lowbeam convert HF_DIR -o DET.gguf; see lowbeam convert --help", LB_EXIT_USAGE);
    size_t t = 0;
    while (t < n_types && strcmp(types[t].name, type_name) != 0)
        t++;
    if (t == n_types)
        return lb_cli_fail("--type: takes f16, f32, q8_0 or f16-exact", LB_EXIT_USAGE);
    lb_cli_log(false);
    lb_cli_catch_signals();

    lb_convert_result result;
    lb_status status = lb_convert(operand, out, types[t].type, &lb_cli_cancelled, &result, &error);
    if (status != LB_STATUS_OK)
        return lb_cli_fail(error.message, status == LB_STATUS_INTERRUPTED ? LB_EXIT_INTERRUPTED : LB_EXIT_NOTHING);
    printf("%s: %zu tensors, %.1f MB", out, result.n_tensors, (double)result.n_bytes / 1e6);
    if (result.n_unused)
        printf("; %zu tensors of the checkpoint that the model does not use were left out", result.n_unused);
    printf("\n");
    return LB_EXIT_OK;
}
