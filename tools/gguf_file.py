"""GGUF files with the standard library alone: read the key-value pairs of one, write a small one.

    pairs = read_pairs("ggml-vocab-qwen2.gguf")          # {"tokenizer.ggml.tokens": (ARRAY, STRING, [...]), ...}
    writer = Writer("out.gguf")
    writer.pair("general.architecture", STRING, "qwen2")
    writer.tensor("output_norm.weight", F32, [64], data)  # ne: fastest axis first, as ggml counts
    writer.write()

The layout is that of ggml's docs/gguf.md, version 3, little endian.
"""
import struct

UINT8, INT8, UINT16, INT16, UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY, UINT64, INT64, FLOAT64 = range(13)
_FORMAT = {UINT8: "<B", INT8: "<b", UINT16: "<H", INT16: "<h", UINT32: "<I", INT32: "<i", FLOAT32: "<f", BOOL: "<?",
           UINT64: "<Q", INT64: "<q", FLOAT64: "<d"}
F32, F16 = 0, 1  # tensor types
_ALIGNMENT = 32


class _Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def scalar(self, kind):
        value, = struct.unpack_from(_FORMAT[kind], self.data, self.at)
        self.at += struct.calcsize(_FORMAT[kind])
        return value

    def string(self):
        n = self.scalar(UINT64)
        self.at += n
        return bytes(self.data[self.at - n:self.at]).decode("utf-8", "surrogateescape")

    def value(self, kind):
        if kind == STRING:
            return self.string()
        if kind != ARRAY:
            return self.scalar(kind)
        element, n = self.scalar(UINT32), self.scalar(UINT64)
        if element == STRING:
            return element, [self.string() for _ in range(n)]
        code = _FORMAT[element][1]
        values = list(struct.unpack_from(f"<{n}{code}", self.data, self.at))
        self.at += n * struct.calcsize("<" + code)
        return element, values


def read_pairs(path):
    """{key: (type, value)}, for an array {key: (ARRAY, (element type, list))}."""
    with open(path, "rb") as file:
        reader = _Reader(file.read())
    magic, version = reader.data[:4], struct.unpack_from("<I", reader.data, 4)[0]
    if magic != b"GGUF" or version not in (2, 3):
        raise SystemExit(f"{path}: not a GGUF file of version 2 or 3")
    reader.at = 8
    _, n_pairs = reader.scalar(UINT64), reader.scalar(UINT64)
    pairs = {}
    for _ in range(n_pairs):
        key, kind = reader.string(), reader.scalar(UINT32)
        pairs[key] = (kind, reader.value(kind))
    return pairs


def _string(text):
    data = text.encode("utf-8", "surrogateescape")
    return struct.pack("<Q", len(data)) + data


def _value(kind, value):
    if kind == STRING:
        return _string(value)
    if kind != ARRAY:
        return struct.pack(_FORMAT[kind], value)
    element, values = value
    head = struct.pack("<IQ", element, len(values))
    if element == STRING:
        return head + b"".join(map(_string, values))
    return head + struct.pack(f"<{len(values)}{_FORMAT[element][1]}", *values)


class Writer:
    def __init__(self, path):
        self.path, self.pairs, self.tensors = path, [], []

    def pair(self, key, kind, value):
        self.pairs.append(_string(key) + struct.pack("<I", kind) + _value(kind, value))

    def tensor(self, name, kind, ne, data):
        """data: bytes-like, in the file's own format; ne[0] is the fastest axis."""
        n = 1
        for extent in ne:
            n *= extent
        if len(data) != n * (4 if kind == F32 else 2):
            raise ValueError(f"{name}: {len(data)} bytes do not fit {ne}")
        self.tensors.append((name, kind, ne, data))

    def write(self):
        head = bytearray(b"GGUF" + struct.pack("<IQQ", 3, len(self.tensors), len(self.pairs)))
        for pair in self.pairs:
            head += pair
        offset = 0
        for name, kind, ne, data in self.tensors:
            head += _string(name) + struct.pack(f"<I{len(ne)}QIQ", len(ne), *ne, kind, offset)
            offset += -(-len(data) // _ALIGNMENT) * _ALIGNMENT
        with open(self.path, "wb") as file:
            file.write(head)
            file.write(bytes(-len(head) % _ALIGNMENT))
            for _, _, _, data in self.tensors:
                file.write(data)
                file.write(bytes(-len(data) % _ALIGNMENT))
