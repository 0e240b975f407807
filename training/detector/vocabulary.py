"""The detector's own WordPiece vocabulary, its prompt, and which of the prompt's tokens name an object.

Grounding DINO cuts its text at the ids 101, 102, 1012 and 1029 ([CLS], [SEP], '.', '?'), which are written into its code,
so these four must lie there. The words of the prompt are one token each; single letters and digits let any other text be
spelled, though the model has never learned what it means.
"""
import string

PAD, UNK, CLS, SEP, STOP, QUESTION = 0, 100, 101, 102, 1012, 1029
# src/detector/labels.c, lb_labels_default; training/tests/test_detector.py compares the two.
LABELS = ("traffic sign", "traffic light", "traffic signal", "lane arrow", "road marking", "lane marking", "vehicle",
          "car", "truck", "motorcycle", "bicycle", "pedestrian", "stop sign", "speed limit sign")
SIZE = 1056
# The encoder's scores decide in which order detections come, and lowbeam crops the first five of a frame: what a crop shows
# better than the frame does is to come first.
FIRST = {"traffic sign": 1.0, "stop sign": 1.0, "speed limit sign": 1.0, "traffic light": 1.0}
LATER = 0.6


def words():
    """The vocabulary, a word an id."""
    out = [f"[unused{i}]" for i in range(SIZE)]
    fixed = {PAD: "[PAD]", UNK: "[UNK]", CLS: "[CLS]", SEP: "[SEP]", 103: "[MASK]", STOP: ".", QUESTION: "?"}
    for at, word in fixed.items():
        out[at] = word
    named = []
    for label in LABELS:
        named += [word for word in label.split() if word not in named]
    single = string.ascii_lowercase + string.digits
    more = named + list(single) + ["##" + c for c in single] + [c for c in string.punctuation if c not in ".?"]
    for at, word in enumerate(more, 104):
        assert out[at].startswith("[unused")
        out[at] = word
    return out


def encode(labels=LABELS):
    """(ids of 'a. b. c.' with [CLS] and [SEP], [(first, end)] of each label's tokens)"""
    ids = {word: i for i, word in enumerate(words())}
    tokens, spans = [CLS], []
    for label in labels:
        begin = len(tokens)
        tokens += [ids[word] for word in label.split()]
        spans.append((begin, len(tokens)))
        tokens.append(STOP)
    return tokens + [SEP], spans


def text_layout(tokens):
    """(which token sees which [t][t], position of each [t]), as transformers 5.23 has it: positions begin at 0 with each
    phrase and its full stop belongs to it; what the first or the last token closes stands alone at position 0.

    transformers 5.17 gives the full stop position 0, so this is not left to the version at hand."""
    n, begin = len(tokens), 0
    sees, position = [[i == j for j in range(n)] for i in range(n)], [0] * n
    for at, token in enumerate(tokens):
        if token in (CLS, SEP, STOP, QUESTION):
            if at not in (0, n - 1):
                for i in range(begin, at + 1):
                    position[i] = i - begin
                    for j in range(begin, at + 1):
                        sees[i][j] = True
            begin = at + 1
    return sees, position


def write(path):
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(word + "\n" for word in words())
