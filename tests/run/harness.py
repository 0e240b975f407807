"""What the end-to-end tests of the lowbeam program share: a tiny model, clips as folders of PNGs, a run and what it left.

Standard library alone. Environment: LOWBEAM_BUILD, the build folder (needed); LOWBEAM_TEST_MODEL, a folder that
tools/make_demo_model.py wrote (default: made in the build folder from the vocabulary of llama.cpp's sources).

    class Answer(harness.Test):
        def test_good_run(self):
            run = self.answer(self.questions([("q1", "v0")]))
            self.assertEqual(run.status, 0, run)
    harness.main()
"""
import ast
import contextlib
import csv
import fcntl
import glob
import hashlib
import json
import os
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import tempfile
import time
import unittest
import zlib

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TOOLS = os.path.join(TOP, "tools")
CLIPS = os.path.join(TOP, "tests", "video", "ref")
BUILD = os.environ.get("LOWBEAM_BUILD", os.path.join(TOP, "build"))
LOWBEAM = os.path.join(BUILD, "lowbeam")
SKIPPED = 77  # exit status that ctest counts as skipped
PLAIN_TOKENS = 8192  # of Qwen2's 151,643, which take libllama most of a second to read each time
SEED = 2  # of the model's weights: one that says more than one letter
LIMIT_S = 600 if "TSAN_OPTIONS" in os.environ else 120  # of one run; the longest takes some 10 s

sys.path.insert(0, TOOLS)
import qwen2_vocab  # noqa: E402


def token(added):
    """The tiny model's number of what Qwen2's tokenizer has behind its plain tokens."""
    return added - qwen2_vocab.N_PLAIN + PLAIN_TOKENS


def _vocabulary():
    """ggml-vocab-qwen2.gguf of llama.cpp's sources, fetched by scripts/llama_source.sh if need be; None: not to be had."""
    folders = [os.environ.get("LOWBEAM_LLAMA_SRC")]
    with contextlib.suppress(subprocess.SubprocessError, OSError):
        script = os.path.join(TOP, "scripts", "llama_source.sh")
        done = subprocess.run([script], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=300, check=True)
        folders.append(done.stdout.decode().strip())
    for folder in filter(None, folders):
        path = os.path.join(folder, "models", "ggml-vocab-qwen2.gguf")
        if os.path.exists(path):
            return path
    return None


def make_model(*options):
    """The folder of a tiny model, made with more of make_demo_model.py's options; None: no vocabulary to make it with."""
    digest = hashlib.sha256()
    for name in ("make_demo_model.py", "gguf_file.py", "qwen2_vocab.py"):
        with open(os.path.join(TOOLS, name), "rb") as file:
            digest.update(file.read())
    digest.update(" ".join((str(PLAIN_TOKENS), str(SEED), *options)).encode())
    folder = os.path.join(BUILD, "test-model-" + digest.hexdigest()[:8])
    with open(folder + ".lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run side by side
        if not os.path.isdir(folder):
            vocabulary = _vocabulary()
            if not vocabulary:
                return None
            shutil.rmtree(folder + ".partial", ignore_errors=True)
            subprocess.run([sys.executable, os.path.join(TOOLS, "make_demo_model.py"), folder + ".partial", "--vocab",
                            vocabulary, "--plain-tokens", str(PLAIN_TOKENS), "--seed", str(SEED), *options], check=True,
                           stdout=subprocess.DEVNULL)
            os.rename(folder + ".partial", folder)
    return folder


DETECTOR_CONFIG = {  # as tools/make_detector_models.py's kind a; 20 queries
    "model_type": "grounding-dino", "d_model": 32, "num_queries": 20, "encoder_layers": 2, "decoder_layers": 2,
    "encoder_ffn_dim": 64, "decoder_ffn_dim": 48, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
    "backbone_config": {"model_type": "swin", "embed_dim": 16, "depths": [1, 2, 2, 1], "num_heads": [1, 2, 2, 4],
                        "window_size": 7, "out_indices": [2, 3, 4]},
    "text_config": {"model_type": "bert", "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
                    "intermediate_size": 96, "vocab_size": 1100, "max_position_embeddings": 64}}
DETECTOR_WORDS = ("traffic sign light signal lane arrow road marking vehicle car truck motorcycle bicycle pedestrian stop "
                  "speed limit").split()


def detector_file():
    """A small random detector as GGUF, made by `lowbeam convert`. Its pictures' edges are 96 and 160 pixels."""
    path = os.path.join(BUILD, "test-detector.gguf")
    maker = os.path.join(BUILD, "tests", "dump_checkpoint")
    with open(path + ".lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made_from = max(os.path.getmtime(name) for name in (maker, LOWBEAM, __file__))
        if not os.path.exists(path) or os.path.getmtime(path) < made_from:
            with tempfile.TemporaryDirectory(prefix="lowbeam-detector-") as folder:
                words = [f"w{i}" for i in range(1100)]
                for at, word in ((0, "[PAD]"), (100, "[UNK]"), (101, "[CLS]"), (102, "[SEP]"), (1012, "."), (1029, "?"),
                                 *enumerate(DETECTOR_WORDS, 200)):
                    words[at] = word
                edges = {"shortest_edge": 96, "longest_edge": 160}
                texts = {"config.json": json.dumps(DETECTOR_CONFIG), "vocab.txt": "\n".join(words) + "\n",
                         "preprocessor_config.json": json.dumps({
                             "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225], "size": edges,
                             "resample": 2})}
                for name, text in texts.items():
                    with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
                        file.write(text)
                subprocess.run([maker, folder], check=True)
                subprocess.run([LOWBEAM, "convert", folder, "-o", path + ".partial.gguf", "--type", "f32"], check=True,
                               stdout=subprocess.DEVNULL)
                os.rename(path + ".partial.gguf", path)
    return path


def model_files(folder=None):
    """(language model, vision part) of a folder, without one of the tiny model"""
    found = glob.glob(os.path.join(folder or MODEL, "*.gguf"))
    vision, = (path for path in found if "mmproj" in os.path.basename(path))
    language, = (path for path in found if "mmproj" not in os.path.basename(path))
    return language, vision


def with_context(source, target, n):
    """The language model with a context of n tokens in its header."""
    with open(source, "rb") as file:
        data = bytearray(file.read())
    key = b"qwen2.context_length"
    at = data.index(key) + len(key)
    assert struct.unpack_from("<I", data, at)[0] == 4  # an unsigned integer of 32 bits
    struct.pack_into("<I", data, at + 4, n)
    with open(target, "wb") as file:
        file.write(data)
    return target


def write_png(path, width, height, pixel):
    """pixel(x, y): (r, g, b), 0 to 255"""
    rows = b"".join(b"\0" + bytes(c for x in range(width) for c in pixel(x, y)) for y in range(height))

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    with open(path, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)) +
                   chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def read_npy(path):
    """(dtype, shape, bytes) of a .npy file, format 1.0, read by hand."""
    with open(path, "rb") as file:
        data = file.read()
    if data[:8] != b"\x93NUMPY\x01\x00":
        raise AssertionError(f"{path}: begins with {data[:8]!r}")
    n, = struct.unpack_from("<H", data, 8)
    if (10 + n) % 64 or data[9 + n:10 + n] != b"\n":
        raise AssertionError(f"{path}: a header of {n} bytes, or without its line end")
    header = ast.literal_eval(data[10:10 + n].decode("ascii").strip())
    if header["fortran_order"] is not False:
        raise AssertionError(f"{path}: {header}")
    return header["descr"], header["shape"], data[10 + n:]


class Run:
    """What became of one call of the program."""

    def __init__(self, command, status, out, err, csv_path=None):
        self.command, self.status, self.out, self.err, self.csv_path = command, status, out, err, csv_path

    def __str__(self):
        return f"{' '.join(self.command)}\nexit status {self.status}\nstdout:\n{self.out}\nstderr:\n{self.err}"

    def rows(self):
        """The CSV: a list of dictionaries, in its order."""
        with open(self.csv_path, encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file, strict=True))

    def answers(self):
        return {row["id"]: row["answer"] for row in self.rows()}

    def journal(self):
        """The journal's answers by id, each a dictionary."""
        db = sqlite3.connect(self.csv_path[:-4] + ".db")
        try:
            db.row_factory = sqlite3.Row
            return {row["id"]: dict(row) for row in db.execute("SELECT * FROM answer ORDER BY question")}
        finally:
            db.close()

    def logits(self):
        return {i: json.loads(row["letter_logits"]) for i, row in self.journal().items() if row["letter_logits"]}

    def complaints(self):
        """stderr without what a good run says there, too."""
        usual = ("Loading the models ...", " questions, ")
        return [line for line in self.err.splitlines() if not any(text in line for text in usual)]


def processes():
    """{pid: (parent, state, command line)}"""
    found = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            with open(f"/proc/{name}/stat", "rb") as file:
                state, parent = file.read().rsplit(b")", 1)[1].split()[:2]
            with open(f"/proc/{name}/cmdline", "rb") as file:
                found[int(name)] = (int(parent), state.decode(), file.read().replace(b"\0", b" ").decode(errors="replace"))
    return found


def children(pid, word):
    return [child for child, (parent, _, command) in processes().items() if parent == pid and word in command]


def has_mapped(pid, name):
    """Whether this process has a memory file of this name in its memory."""
    try:
        with open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as file:
            return name in file.read()
    except OSError:
        return False


def is_alive(pid):
    _, state, _ = processes().get(pid, (0, "X", ""))
    return state not in "ZX"


class Test(unittest.TestCase):
    """A folder of its own for each test, with the clips v0 to v3: 4 pictures of 48x32 each."""
    maxDiff = None

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="lowbeam-test-")
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.n_runs = 0
        shutil.copytree(COMMON, self.folder, dirs_exist_ok=True)

    def path(self, *names):
        return os.path.join(self.folder, *names)

    def write(self, name, content):
        with open(self.path(name), "wb") as file:
            file.write(content if isinstance(content, bytes) else content.encode())
        return self.path(name)

    def script(self, name, text):
        path = self.write(name, "#!/bin/sh\n" + text + "\n")
        os.chmod(path, 0o755)
        return path

    def questions(self, pairs, name="questions.json", n_choices=4, **fields):
        """pairs: (id, video_path), or (id, video_path, fields of this question)."""
        data = []
        for i, video, *more in pairs:
            data.append({"id": i, "question": f"Câu hỏi {i}: có gì trên đường?",
                         "choices": [f"{letter}. {letter * 2}" for letter in "ABCDEFGH"[:n_choices]],
                         "video_path": video, **fields, **(more[0] if more else {})})
        return self.write(name, json.dumps({"__count__": len(data), "data": data}, ensure_ascii=False))

    def command(self, questions, *options, model=None, mmproj=None, frames=1, out=None, program=None):
        self.n_runs += 1
        csv_path = out or self.path(f"run{self.n_runs}.csv")
        # one thread: ggml's threads spin while they wait for each other, which on a busy machine takes long
        return [program or LOWBEAM, "answer", questions, "--videos", self.folder, "--model", model or model_files()[0], "--mmproj",
                mmproj or model_files()[1], "-n", str(frames), "-t", "1", "--out", csv_path, *options], csv_path

    def environment(self, extra):
        kept = {name: value for name, value in os.environ.items() if not name.startswith("LOWBEAM_")}
        return {**kept, **(extra or {})}

    def check_sane(self, run):
        for text in ("AddressSanitizer", "LeakSanitizer", "runtime error:", "Assertion"):
            self.assertNotIn(text, run.err, run)
        self.assertNotIn("\r", run.err, run)
        self.assertNotIn("\033", run.err + run.out, run)

    def run_program(self, command, csv_path=None, env=None, cwd=None, **streams):
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, env=self.environment(env), cwd=cwd or self.folder,
                              **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}) as process:
            try:
                out, err = process.communicate(timeout=LIMIT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        run = Run(command, process.returncode, *((text or b"").decode(errors="replace") for text in (out, err)),
                  csv_path)
        self.check_sane(run)
        return run

    def answer(self, questions, *options, env=None, **more):
        command, csv_path = self.command(questions, *options, **more)
        return self.run_program(command, csv_path, env)

    def assert_refused(self, run, *words, status=1):
        """Nothing done: one line on stderr, no CSV, no journal, no temporary file."""
        self.assertEqual(run.status, status, run)
        lines = run.complaints()
        self.assertEqual(len(lines), 1, run)
        self.assertTrue(lines[0].startswith("lowbeam: "), run)
        for word in words:
            self.assertIn(word, lines[0], run)
        self.assert_nothing_left(run)

    def assert_nothing_left(self, run):
        self.assertFalse(os.path.exists(run.csv_path), run)
        self.assertFalse(os.path.exists(run.csv_path[:-4] + ".db"), run)
        self.assertEqual(glob.glob(self.path(".lowbeam*")), [], run)

    def assert_fallback(self, run, question, *words):
        """A, marked, with the cause as the text."""
        row = run.journal()[question]
        self.assertEqual((row["answer"], row["fallback"]), ("A", 1), run)
        self.assertIsNotNone(row["error"], run)
        self.assertEqual(row["error"], row["raw_response"])
        for word in words:
            self.assertIn(word, row["error"])

    def assert_close(self, one, other, most=1e-4):
        """Logits of two runs, by id. most: absolute; 6e-6 was seen where f32 sums came in another order, at logits near 40."""
        self.assertEqual(one.keys(), other.keys())
        for i, values in one.items():
            worst = max(abs(a - b) for a, b in zip(values, other[i]))
            self.assertLessEqual(worst, most, f"question {i}: {values} and {other[i]}")

    # a run that goes on while the test does something to it

    def start(self, questions, *options, env=None, **more):
        command, csv_path = self.command(questions, *options, **more)
        out, err = tempfile.TemporaryFile(), tempfile.TemporaryFile()
        self.addCleanup(out.close), self.addCleanup(err.close)
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=self.folder,
                                   env=self.environment(env), start_new_session=True)
        process.streams, process.csv_path = (out, err), csv_path
        self.addCleanup(self.end, process)
        return process

    @staticmethod
    def end(process):
        with contextlib.suppress(ProcessLookupError):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def wait_for(self, condition, what, limit_s=60):
        until = time.monotonic() + limit_s
        while not condition():
            if time.monotonic() > until:
                self.fail(f"waited {limit_s} s: {what}")
            time.sleep(0.02)

    def wait_for_answers(self, process, n):
        """Until the journal holds n answers."""
        def stored():
            self.assertIsNone(process.poll(), "ended before it was time to")
            path = process.csv_path[:-4] + ".db"
            if not os.path.exists(path):
                return False
            db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
            try:
                return db.execute("SELECT count(*) FROM answer").fetchone()[0] >= n
            except sqlite3.Error:  # its tables are not there yet
                return False
            finally:
                db.close()
        self.wait_for(stored, f"{n} answers")

    def finish(self, process, limit_s=60):
        process.wait(timeout=limit_s)
        texts = []
        for stream in process.streams:
            stream.seek(0)
            texts.append(stream.read().decode(errors="replace"))
        run = Run(process.args, process.returncode, *texts, process.csv_path)
        self.check_sane(run)
        return run


class _Result(unittest.TestResult):
    """cmocka's lines, so that scripts/count_tests.py counts each test by its name."""

    def startTest(self, test):
        super().startTest(test)
        self.began = time.monotonic()

    def _say(self, test, kind, more=""):
        print(f"[{kind}] {test.id().split('.', 1)[1]}", flush=True)
        print(f"{more}({time.monotonic() - self.began:.1f} s)", flush=True)

    def addSuccess(self, test):
        super().addSuccess(test)
        self._say(test, "       OK ")

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        print(reason)
        self._say(test, "  SKIPPED ")

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self._say(test, "  FAILED  ", self.failures[-1][1])

    def addError(self, test, err):
        super().addError(test, err)
        self._say(test, "  FAILED  ", self.errors[-1][1])

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err:
            self._say(test, "  FAILED  ", f"{subtest}\n{(self.failures + self.errors)[-1][1]}")


def main():
    """Runs the tests of the calling program; arguments: only those whose name contains one of them."""
    global MODEL, COMMON
    if not os.access(LOWBEAM, os.X_OK):
        sys.exit(f"{LOWBEAM}: there is no such program; LOWBEAM_BUILD names the build folder")
    MODEL = os.environ.get("LOWBEAM_TEST_MODEL") or make_model()
    if not MODEL:
        print("no model can be made, because llama.cpp's sources with the vocabulary could not be fetched")
        sys.exit(SKIPPED)
    tests = unittest.defaultTestLoader.loadTestsFromModule(sys.modules["__main__"])
    words = sys.argv[1:]
    chosen = unittest.TestSuite(test for suite in tests for test in suite
                                if not words or any(word in test.id() for word in words))
    with tempfile.TemporaryDirectory(prefix="lowbeam-clips-") as COMMON:
        for v in range(4):
            os.mkdir(os.path.join(COMMON, f"v{v}"))
            for i in range(4):
                write_png(os.path.join(COMMON, f"v{v}", f"{i}.png"), 48, 32,
                          lambda x, y: ((x * 5 + v * 40) % 256, (y * 7 + i * 30) % 256, (x * y + v) % 256))
        result = _Result()
        chosen.run(result)
    print(f"{result.testsRun} tests, {len(result.failures) + len(result.errors)} failed")
    sys.exit(not result.wasSuccessful() or not result.testsRun)
