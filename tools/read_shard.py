#!/usr/bin/env python3
"""Read prepared shards without nct, as src/shard/FORMAT.md describes them: for notebooks, and as a check of
that page. `read(path)` gives a shard as a dictionary; every checksum is verified on the way.

usage: read_shard.py SHARD_OR_FOLDER...     one line of JSON for every shard (needs numpy, zstandard)
"""

import json
import os
import struct
import sys

import numpy as np
import zstandard

HEADER, ENTRY, ALIGN = 128, 24, 64
DTYPES = {0: ("u8", 1), 1: ("u32", 4), 2: ("f16", 2), 3: ("bf16", 2), 4: ("f32", 4)}
NUMPY = {"u8": "<u1", "u32": "<u4", "f16": "<f2", "bf16": "<u2", "f32": "<f4"}
SPLITS = ["train", "validation", "test"]
CONTENTS = ["images", "stimuli", "session"]
CODECS = ["raw", "zstd", "zstd+lines", "planes"]


def _crc_table():
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(0x82F63B78), table >> 1)
    return [int(v) for v in table]


_TABLE = _crc_table()


def crc32c(data, crc=0):
    """CRC32C (Castagnoli) of `data` after data whose sum is `crc`."""
    crc ^= 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


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


def _planes(block, length, path):
    """Values of a block that is stored as bit planes, a byte each."""
    n_groups = -(-length // 8)
    n_counts = -(-n_groups // 2)
    data = np.frombuffer(block, np.uint8)
    counts, planes = data[:n_counts], data[n_counts:]
    counts = np.stack([counts & 15, counts >> 4], axis=1).reshape(-1)[:n_groups].astype(np.int64)
    if counts.max(initial=0) > 8 or counts.sum() != len(planes):
        raise ValueError(f"{path}: numbers of planes that do not fit")
    stored = np.zeros((n_groups, 8), np.uint8)
    stored[np.arange(8) < counts[:, None]] = planes
    bits = np.unpackbits(stored[:, :, None], axis=2)
    return np.packbits(bits.transpose(0, 2, 1), axis=2, bitorder="little").reshape(-1)[:length]


def _sums(values, line):
    """Sums down the lines, modulo 256."""
    lines = np.zeros(-(-len(values) // line) * line, np.uint8)
    lines[:len(values)] = values
    return np.cumsum(lines.reshape(-1, line), axis=0, dtype=np.uint8).reshape(-1)[:len(values)]


def _block(data, entry, line, shape, path):
    at, stored, length, checksum, codec = struct.unpack_from("<QIIII", data, entry)
    if at % ALIGN:
        raise ValueError(f"{path}: a block at byte {at}")
    block = data[at:at + stored]
    if crc32c(block) != checksum:
        raise ValueError(f"{path}: damaged block at byte {at}")
    name = CODECS[codec]
    if name == "planes":
        values = _planes(block, length, path)
        lines = _sums((values >> 1) ^ (0 - (values & 1)).astype(np.uint8), line)
        if len(shape) == 3 and shape[0] == 3:
            images = lines.reshape([-1] + shape)
            images[:, [0, 2]] += images[:, [1]]
        block = lines.tobytes()
    elif name != "raw":
        block = zstandard.ZstdDecompressor().decompress(block, max_output_size=length)
    if len(block) != length:
        raise ValueError(f"{path}: {len(block)} bytes decoded at {at}, {length} expected")
    if name == "zstd+lines":
        block = _sums(np.frombuffer(block, np.uint8), line).tobytes()
    return block, name


def read(path):
    """Metadata of a shard, and under "columns" an array of each field: [records] + its shape. Responses in
    bf16 come as f32."""
    with open(path, "rb") as f:
        data = f.read()
    magic, version, n_fields, rows, size, index_at, index_bytes, meta_at, meta_bytes, checksum = \
        struct.unpack_from("<8sIIQQQQQQI", data)
    if magic != b"NCTSHARD" or version != 1 or size != len(data):
        raise ValueError(f"{path}: no whole shard of version 1")
    blank = data[:64] + bytes(4) + data[68:HEADER]
    sections = data[index_at:index_at + index_bytes] + data[meta_at:meta_at + meta_bytes]
    if crc32c(sections, crc32c(blank)) != checksum:
        raise ValueError(f"{path}: header, index or metadata are damaged")
    shard = _metadata(data[meta_at:meta_at + meta_bytes])
    shard.update(rows=rows, checksum=checksum, columns={}, codecs={})
    if n_fields != len(shard["fields"]):
        raise ValueError(f"{path}: {n_fields} fields in the header")
    entry = index_at
    for (name, (dtype, width), shape), per_block in zip(shard["fields"], shard["block_rows"]):
        line = (shape[-1] if shape else 1) * width
        raw, codecs = [], []
        for _ in range(-(-rows // per_block)):
            block, codec = _block(data, entry, line, shape, path)
            raw.append(block)
            codecs.append(codec)
            entry += ENTRY
        column = np.frombuffer(b"".join(raw), NUMPY[dtype]).reshape([rows] + shape)
        if dtype == "bf16":
            column = (column.astype(np.uint32) << 16).view(np.float32)
        shard["columns"][name] = column
        shard["codecs"][name] = {codec: codecs.count(codec) for codec in sorted(set(codecs))}
    return shard


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
