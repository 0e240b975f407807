"""The dialogue that `lowbeam answer` sends, as tokens: src/run/dialogue.c and src/answer/prompt.c in Python.

A clip's sequence is one prefix (system message, rules, the pictures), the same for all its questions, and one suffix a
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
    """Token ids of prefix and suffixes for one tokenizer and one number of frames.

    prefix     ids up to the last </img>, IMG_CONTEXT at the pictures' places
    visual     positions of the IMG_CONTEXT tokens in it, frame by frame
    """

    def __init__(self, tokenizer, n_frames=8, tokens_per_frame=64, prompt=PROMPT, system=SYSTEM):
        self.tokenizer = tokenizer
        self.id = {name: tokenizer.token_to_id(name)
                   for name in ("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<img>", "</img>", "<IMG_CONTEXT>")}
        self.letter = [self._one(letter) for letter in LETTERS]
        before, after = template(prompt).split("{frames}")
        self.question_at, rest = after.split("{question}")
        self.choices_at, self.request = rest.split("{choices}")
        self.question_at, self.choices_at, self.request = map(plain, (self.question_at, self.choices_at, self.request))
        start, end = self.id["<|im_start|>"], self.id["<|im_end|>"]
        ids = [start, *self.text("system\n" + system), end, *self.text("\n"), start]
        label = "user\n" + plain(before)
        self.visual = []
        for i in range(n_frames):
            ids += self.text(f"{label}Frame{i + 1}: ") + [self.id["<img>"]]
            self.visual += range(len(ids), len(ids) + tokens_per_frame)
            ids += [self.id["<IMG_CONTEXT>"]] * tokens_per_frame + [self.id["</img>"]]
            label = "\n"
        self.prefix = ids
        self.tail = [end, *self.text("\n"), start, *self.text("assistant\n")]

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
