"""InternVL3's tokenizer, recovered from the Qwen2 vocabulary that llama.cpp's sources carry.

llama.cpp's models/ggml-vocab-qwen2.gguf holds the 151643 byte-level tokens, the merges and three special tokens. The
tokens that Qwen2.5 and InternVL3 added after them are spelled out here as the published checkpoints have them.
Needs the standard library alone; tokenizer() needs the package `tokenizers`.
"""
import json
import os

import gguf_file

N_PLAIN = 151643     # byte-level tokens; added tokens follow
N_VOCAB = 151674     # InternVL3-8B
IM_START, IM_END, IMG_START, IMG_END, IMG_CONTEXT = 151644, 151645, 151665, 151666, 151667

# id: (text, special). What is not special is matched inside any text by the reference, too.
ADDED = dict(enumerate([
    ("<|endoftext|>", True), ("<|im_start|>", True), ("<|im_end|>", True),
    ("<|object_ref_start|>", True), ("<|object_ref_end|>", True), ("<|box_start|>", True), ("<|box_end|>", True),
    ("<|quad_start|>", True), ("<|quad_end|>", True), ("<|vision_start|>", True), ("<|vision_end|>", True),
    ("<|vision_pad|>", True), ("<|image_pad|>", True), ("<|video_pad|>", True),
    ("<tool_call>", False), ("</tool_call>", False), ("<|fim_prefix|>", False), ("<|fim_middle|>", False),
    ("<|fim_suffix|>", False), ("<|fim_pad|>", False), ("<|repo_name|>", False), ("<|file_sep|>", False),
    ("<img>", True), ("</img>", True), ("<IMG_CONTEXT>", True), ("<quad>", True), ("</quad>", True),
    ("<ref>", True), ("</ref>", True), ("<box>", True), ("</box>", True)], N_PLAIN))

# Qwen2's pre-tokenizer, as transformers' tokenization_qwen2.py has it.
SPLIT = (r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"""
         r"""|\s+(?!\S)|\s+""")


def vocab_path(llama_cpp):
    path = os.path.join(llama_cpp, "models", "ggml-vocab-qwen2.gguf")
    if not os.path.exists(path):
        raise SystemExit(f"{path}: no such file; --llama-cpp (or LOWBEAM_LLAMA_SRC) names the folder of llama.cpp's "
                         "sources, vendor/llama.cpp in the source distribution of llama-cpp-python 0.3.36")
    return path


def read(path):
    """(tokens [151643], merges) of a GGUF file with Qwen2's tokenizer."""
    pairs = gguf_file.read_pairs(path)
    _, (_, tokens) = pairs["tokenizer.ggml.tokens"]
    _, (_, merges) = pairs["tokenizer.ggml.merges"]
    if tokens[IM_START] != "<|im_start|>":
        raise SystemExit(f"{path}: not Qwen2's vocabulary")
    return tokens[:N_PLAIN], merges


def write_files(folder, path):
    """vocab.json, merges.txt, added_tokens.json, special_tokens_map.json, tokenizer_config.json, as published."""
    tokens, merges = read(path)
    added = {text: i for i, (text, _) in ADDED.items()}

    def dump(name, value):
        with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
            json.dump(value, file, ensure_ascii=False, indent=None if name == "vocab.json" else 2)

    dump("vocab.json", {token: i for i, token in enumerate(tokens)})
    with open(os.path.join(folder, "merges.txt"), "w", encoding="utf-8") as file:
        file.write("#version: 0.2\n" + "".join(merge + "\n" for merge in merges))
    dump("added_tokens.json", added)
    plain = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    dump("special_tokens_map.json", {"eos_token": {"content": "<|im_end|>", **plain},
                                     "pad_token": {"content": "<|endoftext|>", **plain}})
    dump("tokenizer_config.json", {
        "add_bos_token": False, "add_prefix_space": False,
        "added_tokens_decoder": {str(i): {"content": text, **plain, "special": special}
                                 for i, (text, special) in ADDED.items()},
        "bos_token": None, "clean_up_tokenization_spaces": False, "eos_token": "<|im_end|>", "errors": "replace",
        "model_max_length": 12288, "pad_token": "<|endoftext|>", "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer", "unk_token": None})


def tokenizer(path, special_in_text=True):
    """The reference's tokenizer. special_in_text=False: special tokens written in a text are plain text."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
    tokens, merges = read(path)
    result = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)},
                                  merges=[tuple(merge.split(" ")) for merge in merges]))
    result.normalizer = normalizers.NFC()
    result.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
                                                    pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    result.decoder = decoders.ByteLevel()
    for _, (text, special) in sorted(ADDED.items()):
        result.add_tokens([AddedToken(text, normalized=False, special=special)])
    for i, (text, _) in ADDED.items():
        assert result.token_to_id(text) == i, (text, i)
    result.encode_special_tokens = not special_in_text
    return result
