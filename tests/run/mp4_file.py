"""MP4 files of any length made from one short clip, by the tables alone: a sample's bytes may be named more than once, so
six hours of video are two megabytes of tables. Standard library alone."""
import struct

CONTAINERS = (b"moov", b"trak", b"mdia", b"minf", b"stbl")


def _boxes(data, start, end):
    while start < end:
        size, kind = struct.unpack_from(">I4s", data, start)
        assert size >= 8, (kind, size)
        yield kind, start, start + size
        start += size


def _box(kind, *parts):
    content = b"".join(parts)
    return struct.pack(">I4s", 8 + len(content), kind) + content


def _table(kind, rows, form, head=b""):
    packed = b"".join(struct.pack(form, *row) for row in rows)
    return _box(kind, bytes(4), head, struct.pack(">I", len(rows)), packed)


class Source:
    """A clip with one chunk and no B-frames (tests/video/ref/av1.mp4, h264_short.mp4)."""

    def __init__(self, path):
        with open(path, "rb") as file:
            self.data = file.read()
        self.box = {}
        self._find(0, len(self.data))
        assert b"ctts" not in self.box, "its frames are shown in another order than they are stored"
        start, _ = self.box[b"stsz"]
        same, n = struct.unpack_from(">II", self.data, start + 12)
        assert same == 0
        self.sizes = struct.unpack_from(f">{n}I", self.data, start + 20)
        start, _ = self.box[b"stco"]
        n_chunks, offset = struct.unpack_from(">II", self.data, start + 12)
        assert n_chunks == 1
        self.bytes = self.data[offset:offset + sum(self.sizes)]
        self.timescale, = struct.unpack_from(">I", self.data, self.box[b"mdhd"][0] + 20)

    def _find(self, start, end):
        for kind, at, past in _boxes(self.data, start, end):
            self.box.setdefault(kind, (at, past))
            if kind in CONTAINERS:
                self._find(at + 8, past)

    def _copy(self, kind):
        start, end = self.box[kind]
        return self.data[start:end]

    def _with_duration(self, kind, at, duration):
        content = bytearray(self._copy(kind))
        struct.pack_into(">I", content, at, duration)
        return bytes(content)

    def write(self, path, n_rounds, fps, n_samples=None):
        """The clip n_rounds times over at fps frames a second; or its first n_samples once (0: no frame at all)."""
        sizes = self.sizes if n_samples is None else self.sizes[:n_samples]
        n = len(sizes) * n_rounds
        delta = round(self.timescale / fps)
        assert n * delta < 1 << 32
        seconds = n * delta / self.timescale
        ftyp = self._copy(b"ftyp")
        offset = len(ftyp) + 8
        stbl = _box(b"stbl", self._copy(b"stsd"), _table(b"stts", [(n, delta)] if n else [], ">II"),
                    _table(b"stss", [(1 + i * len(sizes),) for i in range(n_rounds)] if n else [], ">I"),
                    _table(b"stsc", [(1, len(sizes), 1)] if n else [], ">III"),
                    _table(b"stsz", [(size,) for size in sizes] * n_rounds, ">I", head=bytes(4)),
                    _table(b"stco", [(offset,)] * (n_rounds if n else 0), ">I"))
        mdia = _box(b"mdia", self._with_duration(b"mdhd", 24, n * delta), self._copy(b"hdlr"),
                    _box(b"minf", self._copy(b"vmhd"), self._copy(b"dinf"), stbl))
        trak = _box(b"trak", self._with_duration(b"tkhd", 28, round(1000 * seconds)), mdia)
        moov = _box(b"moov", self._with_duration(b"mvhd", 24, round(1000 * seconds)), trak)
        with open(path, "wb") as file:
            file.write(ftyp + _box(b"mdat", self.bytes[:sum(sizes)]) + moov)
        return path
