#!/usr/bin/env python3
"""Model files that cannot be used: each is refused in one line that names the file, with exit status 1, before anything is
written; none makes a library abort."""
import os
import shutil
import random
import struct

import harness
import gguf_file
import make_demo_model


class ModelFiles(harness.Test):
    def setUp(self):
        super().setUp()
        self.model, self.mmproj = harness.model_files()
        self.path_of_questions = self.questions([("q", "v0")])

    def refuse(self, *words, **files):
        run = self.answer(self.path_of_questions, **files)
        self.assert_refused(run, *words)
        for word in ("signal", "engine process"):  # an abort, though caught
            self.assertNotIn(word, run.err, run)
        return run

    def vision(self, name, change):
        """A vision part for which change(writer) was called before it was written."""
        class Changed(gguf_file.Writer):
            def write(self):
                change(self)
                super().write()
        original, gguf_file.Writer = gguf_file.Writer, Changed
        try:
            make_demo_model.write_mmproj(self.path(name), make_demo_model.Weights(2))
        finally:
            gguf_file.Writer = original
        return self.path(name)

    def patched(self, source, name, old, new):
        """A copy with these bytes in place of those, which are there exactly once."""
        with open(source, "rb") as file:
            data = file.read()
        self.assertEqual(data.count(old), 1, old)
        self.assertEqual(len(old), len(new))
        return self.write(name, data.replace(old, new))

    def test_vision_part_that_is_only_rewritten_works(self):  # so that the changes below are what is refused
        run = self.answer(self.path_of_questions, mmproj=self.vision("same.gguf", lambda writer: None))
        self.assertEqual(run.status, 0, run)

    def test_missing_empty_and_others(self):
        self.write("empty.gguf", b"")
        self.write("text.gguf", b"This is not a model at all, but a text.\n" * 10)
        self.write("magic.gguf", b"GGUF")
        os.mkdir(self.path("folder.gguf"))
        os.mkfifo(self.path("fifo.gguf"))
        for name, word in (("none.gguf", "No such file"), ("empty.gguf", "too short"), ("text.gguf", "not a GGUF"),
                           ("magic.gguf", "too short"), ("fifo.gguf", "not a regular file")):
            for which in ("model", "mmproj"):
                with self.subTest(f"{which} {name}"):
                    self.refuse(name, word, **{which: self.path(name)})
        with self.subTest("folders"):
            self.refuse("folder.gguf", "convert_hf_to_gguf.py", model=self.path("folder.gguf"))
            self.refuse("folder.gguf", "not a regular file", mmproj=self.path("folder.gguf"))

    def test_truncated(self):
        for which, source in (("model", self.model), ("mmproj", self.mmproj)):
            size = os.path.getsize(source)
            for n in (24, 100, 30000, size // 2, size - 40):
                with self.subTest(f"{which} {n}"):
                    with open(source, "rb") as file:
                        self.write("cut.gguf", file.read(n))
                    self.refuse("cut.gguf", **{which: self.path("cut.gguf")})

    def test_exchanged(self):
        self.refuse("exchanged", os.path.basename(self.mmproj), model=self.mmproj, mmproj=self.model)
        self.refuse("exchanged", model=self.mmproj)
        self.refuse("exchanged", mmproj=self.model)

    def test_other_architectures(self):
        unknown = self.patched(self.model, "unknown.gguf", b"architecture\x08\0\0\0\x05\0\0\0\0\0\0\0qwen2",
                               b"architecture\x08\0\0\0\x05\0\0\0\0\0\0\0qwenX")
        self.refuse("unknown.gguf", model=unknown)
        writer = gguf_file.Writer(self.path("bert.gguf"))
        writer.pair("general.architecture", gguf_file.STRING, "bert")
        writer.pair("tokenizer.ggml.model", gguf_file.STRING, "bert")
        writer.pair("tokenizer.ggml.tokens", gguf_file.ARRAY, (gguf_file.STRING, ["[CLS]", "[SEP]", "a"]))
        writer.write()
        self.refuse("bert.gguf", model=self.path("bert.gguf"))
        bare = gguf_file.Writer(self.path("bare.gguf"))
        bare.write()
        self.refuse("bare.gguf", "general.architecture", model=self.path("bare.gguf"))
        self.refuse("bare.gguf", "general.architecture", mmproj=self.path("bare.gguf"))

    def test_other_encoders(self):
        def other_projector(writer):
            at = next(i for i, pair in enumerate(writer.pairs) if b"clip.projector_type" in pair)
            del writer.pairs[at]
            writer.pair("clip.projector_type", gguf_file.STRING, "qwen2.5vl_merger")

        self.refuse("qwen2.5vl_merger", "internvl", mmproj=self.vision("qwen.gguf", other_projector))
        six = self.vision("six.gguf", lambda writer: writer.tensor("v.blk.0.attn_q_norm.weight", gguf_file.F32, [64],
                                                                   bytes(256)))
        self.refuse("six.gguf", "InternViT-6B", mmproj=six)

    def test_context_that_no_model_has(self):
        for n in (0, 0xffffffff, 1 << 30):
            with self.subTest(n):
                model = harness.with_context(self.model, self.path("context.gguf"), n)
                self.refuse("context.gguf", "context_length", model=model)

    def test_language_headers_that_make_no_sense(self):
        with open(self.model, "rb") as file:
            whole = file.read()
        for key, value, *words in (("block_count", 0, "block_count"), ("block_count", 4000, "block_count"),
                                   ("attention.layer_norm_rms_epsilon", 0xbf800000, "rms_epsilon"),
                                   ("attention.head_count", 3, "wrong shape"),
                                   ("attention.head_count_kv", 0, "wrong shape")):
            with self.subTest(f"{key} {value}"):
                full = ("qwen2." + key).encode()
                at = whole.index(struct.pack("<Q", len(full)) + full) + 8 + len(full) + 4
                model = self.write("odd.gguf", whole[:at] + struct.pack("<I", value) + whole[at + 4:])
                self.refuse("odd.gguf", *words, model=model)

    def test_vocabulary_without_img(self):
        for name, old, new in (("no-img.gguf", b"\x05\0\0\0\0\0\0\0<img>", b"\x05\0\0\0\0\0\0\0<imx>"),
                               ("no-end.gguf", b"\x0a\0\0\0\0\0\0\0<|im_end|>", b"\x0a\0\0\0\0\0\0\0<|im_enx|>")):
            with self.subTest(name):
                token = old[8:].decode()
                self.refuse(name, token, "no InternVL", model=self.patched(self.model, name, old, new))

    def test_parts_that_do_not_belong_together(self):
        wide, make_demo_model.N_EMBD = make_demo_model.N_EMBD, 96
        try:
            other = self.vision("wide.gguf", lambda writer: None)
        finally:
            make_demo_model.N_EMBD = wide
        self.refuse("wide.gguf", "do not belong together", "96", "64", mmproj=other)

    def test_tensors_missing_or_of_other_shapes(self):
        def without(name):
            def change(writer):
                writer.tensors = [tensor for tensor in writer.tensors if tensor[0] != name]
            return change

        def reshaped(name, ne):
            def change(writer):
                writer.tensors = [(t[0], t[1], ne, bytes(4 * ne[0] * ne[1])) if t[0] == name else t
                                  for t in writer.tensors]
            return change

        for name in ("v.patch_embd.weight", "v.blk.1.attn_k.weight", "mm.model.mlp.3.weight"):
            with self.subTest(name):
                self.refuse(name, "missing", mmproj=self.vision("less.gguf", without(name)))
        for name, ne in (("v.position_embd.weight", [64, 1024]), ("v.blk.1.attn_q.weight", [32, 64])):
            with self.subTest(name):
                self.refuse(name, "expected", mmproj=self.vision("shape.gguf", reshaped(name, ne)))

    def test_tensors_of_types_that_ggml_would_abort_on(self):
        def of_type(name, kind, n_bytes):
            def change(writer):
                at = next(i for i, tensor in enumerate(writer.tensors) if tensor[0] == name)
                writer.tensors[at] = (name, kind, writer.tensors[at][2], bytes(n_bytes))
            return change

        f16, f64, i32 = 1, 28, 26
        for name, kind, n_bytes, word in (("v.blk.0.ln1.bias", f16, 128, "f16"), ("v.class_embd", f16, 128, "f16"),
                                          ("v.blk.1.attn_out.weight", f64, 8 * 64 * 64, "f64"),
                                          ("v.blk.1.ffn_up.weight", i32, 4 * 64 * 128, "i32")):
            with self.subTest(name):
                self.refuse(name, word, mmproj=self.vision("type.gguf", of_type(name, kind, n_bytes)))

    def test_as_many_layers_as_are_allowed(self):  # ggml aborts where a graph has no room for them
        few, make_demo_model.V_LAYER = make_demo_model.V_LAYER, 128
        try:
            deep = self.vision("deep.gguf", lambda writer: None)
        finally:
            make_demo_model.V_LAYER = few
        run = self.answer(self.path_of_questions, mmproj=deep)
        self.assertEqual(run.status, 0, run)

    def test_floats_that_make_no_sense(self):
        for key, value in (("layer_norm_epsilon", -1.0), ("layer_norm_epsilon", float("nan")), ("image_std", 0.0),
                           ("image_std", float("nan"))):
            with self.subTest(f"{key} {value}"):
                def change(writer, key=key, value=value):
                    writer.pairs = [pair[:-4] + struct.pack("<f", value) if key.encode() in pair else pair
                                    for pair in writer.pairs]
                self.refuse("odd.gguf", key, mmproj=self.vision("odd.gguf", change))

    def test_header_values_that_make_no_sense(self):
        for key, value in (("image_size", 450), ("image_size", 4096), ("patch_size", 0), ("embedding_length", 100000),
                           ("block_count", 4000), ("attention.head_count", 7), ("projector.scale_factor", 3)):
            with self.subTest(f"{key} {value}"):
                def change(writer, key=key, value=value):
                    full = ("clip.vision." + key).encode()
                    writer.pairs = [pair[:-4] + struct.pack("<I", value) if full in pair else pair
                                    for pair in writer.pairs]
                self.refuse("odd.gguf", mmproj=self.vision("odd.gguf", change))

    def test_weights_that_are_no_numbers(self):
        def change(writer):
            writer.tensors = [(*t[:3], b"\0\0\xc0\x7f" * 64) if t[0] == "v.class_embd" else t for t in writer.tensors]
        run = self.answer(self.path_of_questions, mmproj=self.vision("nan.gguf", change))
        self.assertEqual(run.status, 3, run)
        self.assert_fallback(run, "q", "not finite")

    def with_nan(self, name, marked):
        """The language model with a row of NaN for each token that has the text `marked` in it."""
        with open(self.model, "rb") as file:
            data = bytearray(file.read())
        tokens = gguf_file.read_pairs(self.model)["tokenizer.ggml.tokens"][1][1]
        ends = []
        for tensor in (b"token_embd.weight", f"blk.{make_demo_model.N_LAYER - 1}.ffn_down.weight".encode()):
            self.assertEqual(data.count(tensor), 1)
            at = data.index(tensor) + len(tensor)
            n_dims, = struct.unpack_from("<I", data, at)
            kind, offset = struct.unpack_from("<IQ", data, at + 4 + 8 * n_dims)
            ends.append((at + 16 + 8 * n_dims, kind, offset))
        self.assertEqual(ends[0][1:], (gguf_file.F32, 0))
        start, row = (ends[1][0] + 31) // 32 * 32, 4 * make_demo_model.N_EMBD
        hit = [i for i, token in enumerate(tokens) if marked in token]
        self.assertTrue(hit)
        for i in hit:
            data[start + i * row:start + (i + 1) * row] = b"\0\0\xc0\x7f" * make_demo_model.N_EMBD
        return self.write(name, bytes(data))

    def test_logits_that_are_no_numbers_cost_only_their_question(self):
        model = self.with_nan("nan.gguf", "@")
        path = self.questions([(f"q{i}", f"v{i // 4}", {"question": f"Gì @ {i}?"} if i in (1, 6) else {})
                               for i in range(8)])
        for options in ((), ("--exact",), ("--batch", "1"), ("--answer", "letter")):
            with self.subTest(options):
                quiet = self.answer(path, *options)
                run = self.answer(path, *options, model=model)
                self.assertEqual(run.status, 3, run)
                for i in ("q1", "q6"):
                    self.assert_fallback(run, i, "language model", "not finite")
                expected = {i: letter for i, letter in quiet.answers().items() if i not in ("q1", "q6")}
                self.assertEqual({i: letter for i, letter in run.answers().items() if i in expected}, expected)
                self.assertEqual(len([line for line in run.complaints() if "not finite" in line]), 2, run)

    def test_embeddings_that_are_infinite_name_their_stage(self):
        def change(writer):
            writer.tensors = [(*t[:3], b"\0\0\x80\x7f" * (len(t[3]) // 4)) if t[0] == "v.patch_embd.bias" else t
                              for t in writer.tensors]
        run = self.answer(self.questions([("q", "v0"), ("r", "v1")]), mmproj=self.vision("inf.gguf", change))
        self.assertEqual(run.status, 3, run)
        for i in ("q", "r"):
            self.assert_fallback(run, i, "vision encoder", "tile 0", "not finite")

    def test_damaged_headers_never_hang_or_pass_for_a_model_that_aborts_lowbeam(self):
        with open(self.mmproj, "rb") as file:
            whole = file.read()
        rng = random.Random(7)
        for i in range(6):
            data = bytearray(whole)
            for _ in range(3):
                data[rng.randrange(8, 6000)] = rng.randrange(256)
            with self.subTest(i):
                run = self.answer(self.path_of_questions, mmproj=self.write("damaged.gguf", bytes(data)))
                self.assertIn(run.status, (0, 1, 3), run)  # what was hit may have been a name that nobody reads
                if run.status == 1:
                    self.assert_refused(run)
                else:
                    os.remove(run.csv_path)
                    os.remove(run.csv_path[:-4] + ".db")

    def test_folders_of_models(self):
        os.mkdir(self.path("both"))
        os.symlink(self.model, self.path("both", "llm.gguf"))
        command, csv_path = self.command(self.path_of_questions, model=self.path("both"))
        at = command.index("--mmproj")
        del command[at:at + 2]
        run = self.run_program(command, csv_path)
        self.assert_refused(run, "mmproj", "convert_hf_to_gguf.py")
        os.symlink(self.mmproj, self.path("both", "mmproj.gguf"))
        run = self.run_program(command, csv_path)
        self.assertEqual(run.status, 0, run)
        os.symlink(self.model, self.path("both", "other.gguf"))
        command[command.index(csv_path)] = csv_path = self.path("second.csv")
        run = self.run_program(command, csv_path)
        self.assert_refused(run, "llm.gguf", "other.gguf", "--model")

    def test_no_model_named(self):
        command, csv_path = self.command(self.path_of_questions)
        at = command.index("--model")
        without = command[:at] + command[at + 4:]
        # the default models know their own pictures alone: a letter or a fallback, but an answer
        run = self.run_program(without, csv_path)
        self.assertIn(run.status, (0, 3), run)
        self.assertIn("1 of 1 questions answered", run.out)
        without[without.index(csv_path)] = csv_path = self.path("second.csv")
        os.makedirs(self.path("alone"))
        without[0] = shutil.copy(without[0], self.path("alone"))
        run = self.run_program(without, csv_path)
        self.assert_refused(run, "lowbeam-small.gguf", "--model")
        at = command.index(self.model)
        command[at] = "OpenGVLab/InternVL3-8B"
        command[-1] = csv_path
        self.assert_refused(self.run_program(command, csv_path), "huggingface-cli", "convert_hf_to_gguf.py")

    def test_device_that_is_not_there(self):
        run = self.answer(self.path_of_questions, "--device", "cuda77")
        self.assert_refused(run, "cuda77", "CPU")

    def test_prompt_template_with_a_fault(self):
        run = self.answer(self.path_of_questions, "--prompt", self.write("p.txt", "{frames} {nothing}"))
        self.assert_refused(run, "p.txt", "nothing")
        self.assert_refused(self.answer(self.path_of_questions, "--prompt", self.path("none.txt")), "none.txt")
        bad = os.fsdecode(b"\xff")
        self.assert_refused(self.answer(self.path_of_questions, "--system", bad), "--system", "UTF-8")

    def test_column_that_is_none(self):
        self.assert_refused(self.answer(self.path_of_questions, "--columns", "id,letter"), "letter")


if __name__ == "__main__":
    harness.main()
