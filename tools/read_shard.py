#!/usr/bin/env python3
"""Read prepared shards without nct, as src/shard/FORMAT.md describes them: for notebooks, and as a check of
that page. docs/python.md shows how.

    images("shards/tiny-imagenet-200", "train")     labelled images of a split
    neural("shards/mtl_monkey_dataset", "train")    sessions: responses, joined with what was shown
    normalise(images, mean, std)                    as a network sees them
    read("….nct")                                   one shard as a dictionary

Every checksum is verified on the way unless `verify=False`; with google_crc32c or crc32c installed that
takes no time.

usage: read_shard.py SHARD_OR_FOLDER...     one line of JSON for every shard (needs numpy, zstandard)
"""

import functools
import json
import os
import struct
import sys
from typing import NamedTuple, Optional

import numpy as np
import zstandard

HEADER, ENTRY, ALIGN = 128, 24, 64
DTYPES = {0: ("u8", 1), 1: ("u32", 4), 2: ("f16", 2), 3: ("bf16", 2), 4: ("f32", 4)}
NUMPY = {"u8": "<u1", "u32": "<u4", "f16": "<f2", "bf16": "<u2", "f32": "<f4"}
SPLITS = ["train", "validation", "test"]
CONTENTS = ["images", "stimuli", "session"]
CODECS = ["raw", "zstd", "zstd+lines", "planes"]


class Images(NamedTuple):
    """Labelled images of a split, in the order in which nct evaluates them."""

    images: np.ndarray
    """uint8 [images, height, width, channels], a view of what is stored, [images, channels, height, width]."""
    labels: np.ndarray
    """int64 [images]: positions in `classes`."""
    ids: np.ndarray
    """uint32 [images]: positions among the raw files, classes sorted, then files."""
    classes: list
    """Names of the classes' folders: WordNet ids."""
    words: list
    """The classes in words."""
    mean: np.ndarray
    """float64 [channels] over the training images, bytes divided by 255: what nct normalises with."""
    std: np.ndarray
    """See `mean`."""


class Session(NamedTuple):
    """Trials of a recording session in a split, in the order in which nct evaluates them. A neuron is called by
    its session and its column, as in nct's tables."""

    name: str
    """The key of its readout."""
    subject: str
    """The animal."""
    stimuli: np.ndarray
    """All images of the set, as in `Neural`."""
    rows: np.ndarray
    """uint32 [trials]: which of `stimuli` was shown."""
    ids: np.ndarray
    """uint32 [trials]: the raw set's ids of the same; trials with equal ids are repeats."""
    responses: np.ndarray
    """float32 [trials, neurons]."""
    labels: Optional[np.ndarray]
    """int64 [trials]: classes of the images, where the recording has them."""
    mean: np.ndarray
    """float32 [neurons]: mean response over the training trials."""
    variance: np.ndarray
    """float32 [neurons]: its variance (n - 1)."""

    @property
    def images(self):
        """[trials, height, width, channels]: what was shown in each trial, a copy."""
        return self.stimuli[self.rows]


class Neural(NamedTuple):
    """A neural set in a split."""

    stimuli: np.ndarray
    """[stimuli, height, width, channels] of all splits, a view as in `Images`; uint8, or float32 where the raw
    arrays were floating-point."""
    ids: np.ndarray
    """uint32 [stimuli]: the raw set's ids."""
    mean: np.ndarray
    """float64 [channels]: what nct normalises stimuli with, bytes divided by 255."""
    std: np.ndarray
    """See `mean`."""
    sessions: dict
    """`Session` by name, in the order of the readouts."""


def images(folder, split, verify=True):
    """`Images` of a split ("train", "validation", "test") of the data set in `folder`."""
    told = manifest(folder)
    columns, _ = _columns(folder, told, split, None, verify)
    return Images(
        images=columns["image"].transpose(0, 2, 3, 1),
        labels=columns["label"].astype(np.int64),
        ids=columns["id"],
        classes=[c["id"] for c in told["classes"]],
        words=[c["words"] for c in told["classes"]],
        mean=np.array(told["mean"]),
        std=np.array(told["std"]),
    )


def neural(folder, split, verify=True):
    """`Neural` of a split ("train", "validation", "test") of the data set in `folder`."""
    told = manifest(folder)
    shown, _ = _columns(folder, told, None, None, verify)
    stimuli = shown["image"].transpose(0, 2, 3, 1)
    sessions = {}
    for name in [s["id"] for s in told["sessions"]]:
        columns, about = _columns(folder, told, split, name, verify)
        rows, ids = columns["row"], columns["id"]
        if rows.max(initial=0) >= len(stimuli) or not np.array_equal(shown["id"][rows], ids):
            raise ValueError(f"{folder}: session {name} names other images than its set holds")
        labels = columns["label"].astype(np.int64) if "label" in columns else None
        responses = columns["responses"].astype(np.float32, copy=False)
        mean, variance = (np.array(about[key], np.float32) for key in ("mean", "variance"))
        sessions[name] = Session(name, about["subject"], stimuli, rows, ids, responses, labels, mean, variance)
    return Neural(stimuli, shown["id"], np.array(told["mean"]), np.array(told["std"]), sessions)


def normalise(images, mean, std):
    """float32 [images, channels, height, width] of [images, height, width, channels]: what nct shows to a network,
    bit for bit, unless the settings have other statistics or turn colours gray."""
    shown = images.transpose(0, 3, 1, 2).astype(np.float32, order="C")
    if images.dtype == np.uint8:
        shown /= np.float32(255)
    shown -= np.asarray(mean, np.float32)[:, None, None]
    shown /= np.asarray(std, np.float32)[:, None, None]
    return shown


def manifest(folder):
    """What the data set in `folder` says of itself: classes, sessions, statistics, shards."""
    path = os.path.join(folder, "manifest.json")
    if not os.path.isfile(path):
        raise ValueError(f"{folder}: no data set; name a folder with a manifest.json, such as shards/tiny-imagenet-200")
    with open(path, encoding="utf-8") as f:
        told = json.load(f)
    if told["version"] != 1:
        raise ValueError(f"{path}: version {told['version']}, and this program reads 1")
    return told


def _columns(folder, told, split, session, verify):
    """Fields of all records of a split and session, shard after shard as the manifest has them, and what the first
    shard says of itself."""
    if split not in SPLITS and split is not None:
        raise ValueError(f"no split {split!r}; there are {', '.join(SPLITS)}")
    listed = [s for s in told["shards"] if s["split"] == split and s["session"] == session]
    if not listed:
        what = f"session {session}" if session else "stimuli" if split is None else "labelled images"
        raise ValueError(f"{folder}: no {what} in {split or 'any split'}")
    total, at, first, columns = sum(s["rows"] for s in listed), 0, {}, {}
    for info in listed:
        path = os.path.join(folder, info["file"])
        shard = read(path, verify)
        if shard["checksum"] != info["checksum"] or shard["rows"] != info["rows"]:
            raise ValueError(f"{path}: not the shard that the manifest names")
        found = shard.pop("columns")
        first = first or shard
        if len(listed) == 1:
            return found, first
        for name, column in found.items():
            # Filled piece by piece: joined at the end, all would be in memory twice.
            if name not in columns:
                columns[name] = np.empty((total, *column.shape[1:]), column.dtype)
            columns[name][at:at + len(column)] = column
        at += shard["rows"]
    return columns, first


def read(path, verify=True):
    """Metadata of a shard, and under "columns" an array of each field: [records] + its shape. Responses in
    bf16 come as f32. `verify=False` computes no checksums."""
    with open(path, "rb") as f:
        data = memoryview(f.read())
    if len(data) < HEADER:
        raise ValueError(f"{path}: no whole shard of version 1")
    magic, version, n_fields, rows, size, index_at, index_bytes, meta_at, meta_bytes, checksum = \
        struct.unpack_from("<8sIIQQQQQQI", data)
    if magic != b"NCTSHARD" or version != 1 or size != len(data):
        raise ValueError(f"{path}: no whole shard of version 1")
    blank = bytes(data[:64]) + bytes(4) + bytes(data[68:HEADER])
    sections = bytes(data[index_at:index_at + index_bytes]) + bytes(data[meta_at:meta_at + meta_bytes])
    if verify and crc32c(sections, crc32c(blank)) != checksum:
        raise ValueError(f"{path}: header, index or metadata are damaged")
    shard = _metadata(bytes(data[meta_at:meta_at + meta_bytes]))
    shard.update(rows=rows, checksum=checksum, columns={}, codecs={})
    if n_fields != len(shard["fields"]):
        raise ValueError(f"{path}: {n_fields} fields in the header")
    entry = index_at
    for (name, (dtype, width), shape), per_block in zip(shard["fields"], shard["block_rows"]):
        raw, codecs, at = np.empty(rows * width * int(np.prod(shape)), np.uint8), [], 0
        for _ in range(-(-rows // per_block)):
            block, codec = _block(data, entry, width, shape, path, verify)
            raw[at:at + len(block)] = block
            codecs.append(codec)
            at += len(block)
            entry += ENTRY
        column = raw.view(NUMPY[dtype]).reshape([rows] + shape)
        if dtype == "bf16":
            column = (column.astype(np.uint32) << 16).view(np.float32)
        shard["columns"][name] = column
        shard["codecs"][name] = {codec: codecs.count(codec) for codec in sorted(set(codecs))}
    return shard


class Metadata:
    """The metadata's encoding: fixed-width little-endian integers, lengths as u64, variants as u32."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, code):
        (value,) = struct.unpack_from("<" + code, self.data, self.at)
        self.at += struct.calcsize("<" + code)
        return value

    def text(self):
        n = self.take("Q")
        self.at += n
        return self.data[self.at - n:self.at].decode("utf-8")

    def many(self, read):
        return [read() for _ in range(self.take("Q"))]

    def option(self, read):
        return read() if self.take("B") else None

    def field(self):
        name, dtype = self.text(), DTYPES[self.take("I")]
        return name, dtype, self.many(lambda: self.take("I"))


def _metadata(data):
    meta = Metadata(data)
    if meta.take("I") != 1:
        raise ValueError("metadata of another version")
    out = {"dataset": meta.text(), "content": CONTENTS[meta.take("I")]}
    if out["content"] == "session":
        out.update(session=meta.text(), subject=meta.text())
        out["mean"] = meta.many(lambda: meta.take("f"))
        out["variance"] = meta.many(lambda: meta.take("f"))
        out["images"] = meta.take("I")
    out["split"] = meta.option(lambda: SPLITS[meta.take("I")])
    out["fields"] = meta.many(meta.field)
    out["block_rows"] = meta.many(lambda: meta.take("I"))
    if meta.at != len(data):
        raise ValueError("bytes after the metadata")
    return out


def _block(data, entry, width, shape, path, verify):
    """Bytes of the block that the index has at `entry`, and the name of its codec."""
    at, stored, length, checksum, codec = struct.unpack_from("<QIIII", data, entry)
    if at % ALIGN:
        raise ValueError(f"{path}: a block at byte {at}")
    block, line = data[at:at + stored], (shape[-1] if shape else 1) * width
    if verify and crc32c(block) != checksum:
        raise ValueError(f"{path}: damaged block at byte {at}")
    name = CODECS[codec]
    if name.startswith("zstd"):
        block = zstandard.ZstdDecompressor().decompress(block, max_output_size=length)
    values = np.frombuffer(block, np.uint8)
    if name == "planes":
        values = _planes(values, length, path)
        values = (values >> 1) ^ -(values & 1)
    if len(values) != length:
        raise ValueError(f"{path}: {len(values)} bytes decoded at {at}, {length} expected")
    if name in ("zstd+lines", "planes"):
        values = _sums(values, line)
    if name == "planes" and len(shape) == 3 and shape[0] == 3:
        red, green, blue = values.reshape([-1] + shape).swapaxes(0, 1)
        red += green
        blue += green
    return values, name


def _planes(data, length, path):
    """Values of a block that is stored as bit planes, a byte each."""
    n_groups = -(-length // 8)
    n_counts = -(-n_groups // 2)
    counts = np.stack([data[:n_counts] & 15, data[:n_counts] >> 4], axis=1).reshape(-1)[:n_groups]
    ends = np.cumsum(counts, dtype=np.int64)
    if counts.max(initial=0) > 8 or ends[-1:].sum() != len(data) - n_counts:
        raise ValueError(f"{path}: numbers of planes that do not fit")
    # A group is eight bytes from its first plane on, without those of the next group.
    planes = np.append(data[n_counts:], np.zeros(8, np.uint8))
    windows = np.ndarray(len(planes) - 7, "<u8", planes, strides=(1,))
    group = windows[ends - counts] & np.array([(1 << 8 * n) - 1 for n in range(9)], np.uint64)[counts]
    # Transposed as 8 x 8 bits: by halves of two, four and eight (Hacker's Delight, 7-3).
    for shift, mask in ((7, 0x00AA00AA00AA00AA), (14, 0x0000CCCC0000CCCC), (28, 0x00000000F0F0F0F0)):
        # In place: new arrays would cost more than what is computed.
        moved = group >> np.uint64(shift)
        moved ^= group
        moved &= np.uint64(mask)
        group ^= moved
        moved <<= np.uint64(shift)
        group ^= moved
    # The first value is in the highest bits.
    return group.byteswap().view(np.uint8)[:length]


def _sums(values, line, batch=64):
    """Sums down the lines, modulo 256."""
    n_batches = -(-len(values) // (line * batch))
    lines = np.zeros(n_batches * batch * line, np.uint8)
    lines[:len(values)] = values
    # Within batches of lines, all at once; then each batch goes on from the one before.
    lines = lines.reshape(n_batches, batch, line).swapaxes(0, 1).copy()
    for at in range(1, batch):
        lines[at] += lines[at - 1]
    lines[:, 1:] += np.cumsum(lines[-1, :-1], axis=0, dtype=np.uint8)
    return lines.swapaxes(0, 1).reshape(-1)[:len(values)]


def _crc32c(data, crc=0):
    """CRC32C (Castagnoli) of `data` after data whose sum is `crc`.

    Data are a polynomial over GF(2), and the sum is the rest of a division: the first part of them, times the right
    power of x, can be added to the second, which halves them. Zeros before them change nothing."""
    data = np.frombuffer(data, np.uint8)
    state = crc ^ 0xFFFFFFFF
    # In pieces, which stay in the cache.
    for piece in (data[at:at + (1 << 18)] for at in range(0, len(data), 1 << 18)):
        first = -len(piece) % 4
        padded = np.zeros(first + len(piece) + 4, np.uint8)
        padded[first:-4] = piece
        padded[first:first + 4] ^= np.frombuffer(struct.pack("<I", state), np.uint8)
        words = padded.view("<u4")
        while len(words) > 1:
            power = (len(words) - 1).bit_length() - 1
            before, words = words[:-(1 << power)], words[-(1 << power):]
            words[-len(before):] ^= _times(before, power)
        state = int(words[0])
    return state ^ 0xFFFFFFFF


def _times(words, power):
    """Each word times x^(32 · 2^power), modulo the polynomial."""
    tables, parts = _tables(power), words.view(np.uint8).reshape(-1, 4)
    out = np.take(tables[0], parts[:, 0])
    for i in (1, 2, 3):
        out ^= np.take(tables[i], parts[:, i])
    return out


@functools.lru_cache(maxsize=None)
def _tables(power):
    """What each byte of a word adds to the product: uint32 [4, 256]."""
    bits = np.uint32(1) << np.arange(32, dtype=np.uint32)
    if power:
        bits = _times(_times(bits, power - 1), power - 1)
    else:
        for _ in range(32):
            bits = np.where(bits & 1, (bits >> 1) ^ np.uint32(0x82F63B78), bits >> 1)
    tables = np.zeros((4, 1), np.uint32)
    for bit in bits.reshape(4, 8).T:
        tables = np.concatenate([tables, tables ^ bit[:, None]], axis=1)
    return tables


def _fastest():
    """The quickest CRC32C there is here."""
    try:
        import google_crc32c
        # Its fallback goes byte by byte.
        if google_crc32c.implementation == "c":
            return lambda data, crc=0: google_crc32c.extend(crc, bytes(data))
    except ImportError:
        pass
    try:
        from crc32c import crc32c
        return crc32c
    except ImportError:
        return _crc32c


crc32c = _fastest()


def shards(path):
    """Files of the shards at `path`, a shard or a folder."""
    if os.path.isfile(path):
        return [path]
    found = []
    for folder, folders, files in os.walk(path):
        folders[:] = [f for f in folders if not f.startswith(".")]
        found += [os.path.join(folder, f) for f in files if f.endswith(".nct")]
    return sorted(found)


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__.strip())
    for path in [shard for arg in sys.argv[1:] for shard in shards(arg)]:
        shard = read(path)
        columns = {}
        for name, column in shard["columns"].items():
            columns[name] = {
                "dtype": str(column.dtype),
                "shape": list(column.shape),
                "crc32c": crc32c(column.tobytes()),
                "codecs": shard["codecs"][name],
            }
        told = {key: shard.get(key) for key in ("dataset", "content", "split", "session", "rows", "checksum")}
        print(json.dumps({"file": path, **told, "columns": columns}))


if __name__ == "__main__":
    main()
