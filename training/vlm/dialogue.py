"""The dialogue that `lowbeam answer` sends, as tokens: src/run/dialogue.c and src/answer/prompt.c in Python.

A clip's sequence is one prefix (system message, rules, detections, the pictures), the same for all its questions, and one suffix a
question (question, choices, request, the assistant's turn). The cut lies behind the last </img>: lowbeam tokenizes the
text between two special tokens in one piece, so nothing joins across it.
"""
import os
import re
import unicodedata

HERE = os.path.dirname(os.path.abspath(__file__))
PROMPT = os.path.join(HERE, "..", "..", "prompts", "vi.txt")
# src/run/dialogue.c, lb_system_message
SYSTEM = "你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的多模态大语言模型。"
LETTERS = "ABCDEFGH"
_LABELLED = re.compile(r"\s*([A-Za-z])\s*[.):]")


def template(path=PROMPT, with_detections=False):
    """The template's text as lowbeam reads it; the paragraph of {detections} is left out where there are none."""
    with open(path, encoding="utf-8", newline="") as file:
        text = file.read().replace("\r\n", "\n").rstrip("\n")
    paragraphs = re.split(r"\n\n", text)
    if not with_detections:
        paragraphs = [paragraph for paragraph in paragraphs if "{detections}" not in paragraph]
    return "\n\n".join(paragraphs)


def plain(text):
    return text.replace("{{", "{").replace("}}", "}")


class Dialogue:
    """Token ids of prefix and suffixes for one tokenizer.

    prefix     ids of eight frames of one tile up to the last </img>, IMG_CONTEXT at the pictures' places
    """

    def __init__(self, tokenizer, tokens_per_tile=64, prompt=PROMPT, system=SYSTEM):
        self.tokenizer, self.tokens_per_tile = tokenizer, tokens_per_tile
        self.id = {name: tokenizer.token_to_id(name)
                   for name in ("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<img>", "</img>", "<IMG_CONTEXT>")}
        self.letter = [self._one(letter) for letter in LETTERS]
        before, after = template(prompt).split("{frames}")
        self.question_at, rest = after.split("{question}")
        self.choices_at, self.request = rest.split("{choices}")
        self.question_at, self.choices_at, self.request = map(plain, (self.question_at, self.choices_at, self.request))
        found = template(prompt, with_detections=True).split("{frames}")[0]
        self.before, self.before_found = plain(before), [plain(part) for part in found.split("{detections}")]
        start, end = self.id["<|im_start|>"], self.id["<|im_end|>"]
        self.head = [start, *self.text("system\n" + system), end, *self.text("\n"), start]
        self.labels = {}
        self.prefix = self.prefix_of([1] * 8)
        self.tail = [end, *self.text("\n"), start, *self.text("assistant\n")]

    def prefix_of(self, tiles_per_frame, found=None):
        """Ids up to the last </img>. tiles_per_frame: each frame's tiles, thumbnail and crops together; found: a frame's
        detections as src/run/findings.c writes them ("2 (car, truck)"), "" where there are none; None: no detector."""
        lines = [f"Frame{i + 1}: {text}" for i, text in enumerate(found or ()) if text]
        before = self.before_found[0] + "\n".join(lines) + self.before_found[1] if lines else self.before
        ids = list(self.head)
        for i, n in enumerate(tiles_per_frame):
            if i:
                if i not in self.labels:
                    self.labels[i] = self.text(f"\nFrame{i + 1}: ")
                ids += self.labels[i]
            else:
                ids += self.text(f"user\n{before}Frame1: ")
            ids += [self.id["<img>"], *[self.id["<IMG_CONTEXT>"]] * (self.tokens_per_tile * n), self.id["</img>"]]
        return ids

    def text(self, text):
        """Ids of one piece of text between special tokens."""
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def _one(self, text):
        ids = self.text(text)
        assert len(ids) == 1, f"'{text}' is {len(ids)} tokens"
        return ids[0]

    def suffix(self, question, choices):
        """(ids up to the place where the letter is predicted, place of the last token before the choices, places of the
        token that ends each choice)."""
        shown = [choice if self._is_labelled(choice, i) else f"{LETTERS[i]}. {choice}"
                 for i, choice in enumerate(choices)]
        # Normalised piece by piece so that the pieces' ends are known; they meet at ':' or a line feed, across which
        # nothing composes.
        pieces = [unicodedata.normalize("NFC", piece) for piece in
                  [self.question_at + question + self.choices_at] +
                  [choice + "\n" for choice in shown[:-1]] + [shown[-1] + self.request]]
        ends, length = [], 0
        for piece in pieces[:-1]:
            length += len(piece)
            ends.append(length)
        ends.append(length + len(unicodedata.normalize("NFC", shown[-1])) + 1)  # with the line feed after it
        code = self.tokenizer.encode("".join(pieces), add_special_tokens=False)
        # The token that holds character end - 1: a piece's last line feed may be one token with what surrounds it.
        places, k = [], 0
        for end in ends:
            while code.offsets[k][1] < end:
                k += 1
            places.append(k)
        return code.ids + self.tail, places[0], places[1:]

    @staticmethod
    def _is_labelled(choice, i):
        found = _LABELLED.match(choice)
        return bool(found) and found.group(1).upper() == LETTERS[i]


def bare(choice):
    """A choice's text without its letter."""
    return unicodedata.normalize("NFC", re.sub(r"^\s*[A-Ha-h]\s*[.):]\s*", "", choice)).strip()
