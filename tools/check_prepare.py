#!/usr/bin/env python3
"""Compare prepared shards with an independent reading of the raw folders: pixels with Pillow, responses
with pickle and numpy. Shards are read as src/shard/FORMAT.md describes them.

usage: check_prepare.py RAW SHARDS   (needs numpy, Pillow, zstandard; only on data you trust: it unpickles)
"""

import json
import os
import pickle
import sys

import numpy as np
from PIL import Image

from read_shard import read


def read_shard(path):
    """{field: array} of all records."""
    return read(path)["columns"]


def pillow(path, channels):
    image = Image.open(path).convert("L" if channels == 1 else "RGB")
    pixels = np.asarray(image)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def check_images(raw, root, manifest):
    classes = sorted(d for d in os.listdir(os.path.join(raw, "train")) if not d.startswith("."))
    train = []
    for label, name in enumerate(classes):
        folder = os.path.join(raw, "train", name, "images")
        train += [(os.path.join(folder, f), label) for f in sorted(os.listdir(folder)) if f.endswith(".JPEG")]
    with open(os.path.join(raw, "val", "val_annotations.txt")) as f:
        pairs = [line.split("\t")[:2] for line in f if line.strip()]
    test = [(os.path.join(raw, "val", "images", f), classes.index(c)) for f, c in pairs]
    test.sort(key=lambda item: (item[1], os.path.basename(item[0])))
    order = np.arange(len(train))
    np.random.RandomState(1000).shuffle(order)
    validation = set(order[:int(np.floor(0.1 * len(train)))].tolist())
    n = 0
    for shard in manifest["shards"]:
        content = read_shard(os.path.join(root, shard["file"]))
        files = test if shard["split"] == "test" else train
        for image, label, at in zip(content["image"], content["label"], content["id"]):
            path, expected = files[at]
            assert label == expected, path
            assert shard["split"] == "test" or (int(at) in validation) == (shard["split"] == "validation"), path
            assert np.array_equal(image, pillow(path, image.shape[0])), f"{path}: pixels differ"
            n += 1
    assert n == len(train) + len(test), (n, len(train), len(test))
    return n


def check_neural(raw, root, manifest):
    contents = [(s, read_shard(os.path.join(root, s["file"]))) for s in manifest["shards"]]
    n = 0
    stimuli = [c for s, c in contents if s["split"] is None]
    ids = np.concatenate([c["id"] for c in stimuli])
    for content in stimuli:
        for image, at in zip(content["image"], content["id"]):
            expected = np.load(os.path.join(raw, "images", f"{at:06d}.npy"))
            assert np.array_equal(image[0], expected), f"image {at}: pixels differ"
            n += 1
    assert n == sum(f.endswith(".npy") for f in os.listdir(os.path.join(raw, "images")))
    trains = set(np.random.RandomState(1000).permutation(np.arange(1, n + 1))[:int(n * 0.8)].tolist())
    folder = os.path.join(raw, "neuronal_data")
    sessions = sorted(os.listdir(folder))
    assert len(sessions) == len(manifest["sessions"])
    for name in sessions:
        with open(os.path.join(folder, name), "rb") as f:
            session = pickle.load(f)
        for split in ("train", "validation", "test"):
            which = "testing" if split == "test" else "training"
            image_ids = session[f"{which}_image_ids"]
            responses = session[f"{which}_responses"].astype(np.float64)
            wanted = np.array([split == "test" or (int(i) in trains) == (split == "train") for i in image_ids])
            expected = responses[:, :12].sum(axis=1).T.astype("<f4")[wanted]
            (content,) = [c for s, c in contents if s["session"] == str(session["session_id"]) and s["split"] == split]
            assert np.array_equal(content["id"], image_ids[wanted]), (name, split)
            assert np.array_equal(ids[content["row"]], content["id"]), (name, split)
            close = np.allclose(content["responses"], expected, rtol=2e-7, atol=0)
            exact = content["responses"].tobytes() == expected.tobytes()
            assert close and (exact or responses.dtype.kind == "f"), f"{name} {split}: responses differ"
            print(f"    {name} {split}: {len(expected)} trials, {'bit-equal' if exact else 'equal to one rounding'}")
    return n


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    raw, shards = sys.argv[1:]
    for name in sorted(os.listdir(shards)):
        path = os.path.join(shards, name, "manifest.json")
        if os.path.exists(path):
            manifest = json.load(open(path))
            check = check_images if manifest["classes"] else check_neural
            n = check(os.path.join(raw, name), os.path.join(shards, name), manifest)
            print(f"{name}: {n} images equal pixel for pixel")


if __name__ == "__main__":
    main()
