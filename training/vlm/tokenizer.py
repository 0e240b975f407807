#!/usr/bin/env python3
"""The small model's own vocabulary: byte-level BPE with Qwen2's pre-tokenizer and NFC, as the big model's.

    python3 -m vlm.tokenizer OUT_DIR [--clips 4000]       (in training/)  trains it on the generator's texts and the prompts

Written in the layout of a published Qwen2 tokenizer (vocab.json, merges.txt, tokenizer_config.json, ...), which
llama.cpp's converter reads. Every word of the fixed texts becomes one token, so that the rules cost little.
"""
import argparse
import glob
import json
import os
import unicodedata

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from . import dialogue

FOLDER = os.path.join(dialogue.HERE, "vocab")
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>")
N_PLAIN_MAX = 2000
# Qwen2's pre-tokenizer, as transformers' tokenization_qwen2.py has it.
SPLIT = (r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"""
         r"""|\s+(?!\S)|\s+""")


def assemble(model):
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(SPLIT), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def load(folder=FOLDER):
    """The tokenizer of a folder; special tokens are known by name alone, texts are never searched for them."""
    tokenizer = assemble(models.BPE.from_file(os.path.join(folder, "vocab.json"), os.path.join(folder, "merges.txt")))
    n = tokenizer.get_vocab_size()
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in SPECIAL])
    assert [tokenizer.token_to_id(text) for text in SPECIAL] == list(range(n, n + len(SPECIAL)))
    tokenizer.encode_special_tokens = True
    return tokenizer


def corpus(n_clips):
    """(fixed texts, the generator's texts)."""
    from scene import draw_clip
    fixed = ["system\n" + dialogue.SYSTEM, "user\n", "assistant\n", "Frame1: "]
    for path in sorted(glob.glob(os.path.join(os.path.dirname(dialogue.PROMPT), "*.txt"))):
        fixed.append(dialogue.template(path, with_detections=True))
    # src/detector's labels and the way in which they stand in a prompt
    fixed.append("Frame1: 3 (traffic sign, traffic light, traffic signal)\nFrame2: 12 (lane arrow, road marking, lane "
                 "marking, vehicle, car, truck, motorcycle, bicycle, pedestrian, stop sign, speed limit sign)")
    drawn = []
    for seed in range(n_clips):
        for question in draw_clip(seed).questions:
            drawn.append("Câu hỏi: " + question.text + "\n\nCác lựa chọn:\n" + "\n".join(question.choices) + "\n\nHãy")
    return fixed, drawn


def train(fixed, drawn):
    """(vocab, merges). The most frequent pair of neighbours is merged until every word is one token or the vocabulary
    is full; fixed texts count for much, since each dialogue pays for them."""
    splitter = assemble(models.BPE())
    words = {}
    for weight, texts in ((1000, fixed), (1, drawn)):
        for text in texts:
            for word, _ in splitter.pre_tokenizer.pre_tokenize_str(unicodedata.normalize("NFC", text)):
                words[word] = words.get(word, 0) + weight
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {letter: i for i, letter in enumerate(alphabet)}
    parts, merges = {word: list(word) for word in words}, []
    while len(vocab) < N_PLAIN_MAX:
        count = {}
        for word, pieces in parts.items():
            for pair in zip(pieces, pieces[1:]):
                count[pair] = count.get(pair, 0) + words[word]
        if not count:
            break
        best = min(count, key=lambda pair: (-count[pair], pair))
        joined = best[0] + best[1]
        merges.append(best)
        vocab.setdefault(joined, len(vocab))
        for word, pieces in parts.items():
            if joined not in word:
                continue
            i = 0
            while i + 1 < len(pieces):
                if (pieces[i], pieces[i + 1]) == best:
                    pieces[i:i + 2] = [joined]
                i += 1
    return vocab, merges


def write(folder, vocab, merges):
    os.makedirs(folder, exist_ok=True)
    special = {text: len(vocab) + i for i, text in enumerate(SPECIAL)}

    def dump(name, value):
        with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
            json.dump(value, file, ensure_ascii=False, indent=None if name == "vocab.json" else 2)
            file.write("\n")

    dump("vocab.json", vocab)
    with open(os.path.join(folder, "merges.txt"), "w", encoding="utf-8") as file:
        file.write("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    dump("added_tokens.json", special)
    dump("special_tokens_map.json", {"additional_special_tokens": list(SPECIAL[1:]), "eos_token": "<|im_end|>",
                                     "pad_token": "<|endoftext|>"})
    dump("tokenizer_config.json", {
        "add_bos_token": False, "add_prefix_space": False,
        "added_tokens_decoder": {str(i): {"content": text, "lstrip": False, "normalized": False, "rstrip": False,
                                          "single_word": False, "special": True} for text, i in special.items()},
        "additional_special_tokens": list(SPECIAL[1:]), "bos_token": None, "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>", "errors": "replace", "model_max_length": 32768, "pad_token": "<|endoftext|>",
        "split_special_tokens": False, "tokenizer_class": "Qwen2Tokenizer", "unk_token": None})


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("out", nargs="?", default=FOLDER), ap.add_argument("--clips", type=int, default=1000)
    args = ap.parse_args()
    fixed, drawn = corpus(args.clips)
    vocab, merges = train(fixed, drawn)
    write(args.out, vocab, merges)
    lines = dialogue.Dialogue(load(args.out))
    longest = max(len(lines.text(text)) for text in drawn)
    print(f"{len(vocab)} tokens and {len(SPECIAL)} special ones; prefix of 8 frames {len(lines.prefix)} tokens, of them "
          f"{lines.prefix.count(lines.id['<IMG_CONTEXT>'])} visual; longest question with its choices {longest}")


if __name__ == "__main__":
    main()
