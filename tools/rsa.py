"""Computes the similarities of `nct rsa --activity` once more with numpy, and compares.

    python tools/rsa.py FOLDER [--tolerance 1e-6]

FOLDER is that of --out. Prints the largest difference of each number, and ends with 1 if one is above the tolerance.
Needs numpy only.
"""

import argparse
import json
import pathlib
import sys

import numpy as np

TYPES = {"F32": np.float32, "F64": np.float64}


def safetensors(path):
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header.pop("__metadata__", None)
    tensors = {}
    for name, about in header.items():
        first, last = about["data_offsets"]
        values = np.frombuffer(data[8 + size + first : 8 + size + last], TYPES[about["dtype"]])
        tensors[name] = values.reshape(about["shape"]).astype(np.float64)
    return tensors


def dissimilarities(x, kind):
    if kind == "euclidean":
        return np.sqrt(((x[:, None, :] - x[None, :, :]) ** 2).sum(-1))
    if kind == "correlation":
        return 1 - np.corrcoef(x)
    return 1 - (x @ x.T) / np.outer(np.linalg.norm(x, axis=1), np.linalg.norm(x, axis=1))


def ranks(values):
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return ((last - counts + 1 + last) / 2)[inverse]


def compared(a, b, kind):
    if kind == "spearman":
        return np.corrcoef(ranks(a), ranks(b))[0, 1]
    if kind == "pearson":
        return np.corrcoef(a, b)[0, 1]
    x, y = np.sign(a[:, None] - a[None, :]), np.sign(b[:, None] - b[None, :])
    return (x * y).sum() / np.sqrt((x**2).sum() * (y**2).sum())


def alignment(x, y):
    x, y = x - x.mean(0), y - y.mean(0)
    k, l = x @ x.T, y @ y.T
    return (k * l).sum() / np.sqrt((k * k).sum() * (l * l).sum())


def stability(folder, settings):
    """The largest difference between alignments under noise: means over pairs of different draws."""
    noisy = safetensors(folder / "noisy.safetensors")
    draws = range(settings["repeats"])
    largest = 0.0
    for line in (folder / "stability.jsonl").read_text().splitlines():
        row = json.loads(line)

        def activity(std, draw):
            # Without noise there is one draw.
            return noisy[f"{row['model']} {row['layer']} {std!r} {draw}" if std else f"{row['model']} {row['layer']} 0 0"]

        values = [alignment(activity(row["a"], r), activity(row["b"], s)) for r in draws for s in draws if r != s]
        largest = max(largest, abs(np.mean(values) - row["cka"]))
    return largest


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--tolerance", type=float, default=1e-6)
    args = parser.parse_args()
    settings = json.loads((args.folder / "analysis.json").read_text())["settings"]
    activity = safetensors(args.folder / "activity.safetensors")
    found = safetensors(args.folder / "rdms.safetensors")
    rows = [json.loads(line) for line in (args.folder / "metrics.jsonl").read_text().splitlines()]
    rdms = {name: dissimilarities(x, settings["dissimilarity"]) for name, x in activity.items()}
    worst = {"dissimilarities": max(np.abs(rdms[name] - found[name]).max() for name in rdms), "rsa": 0.0, "cka": 0.0}
    for row in rows:
        upper = np.triu_indices(len(rdms[row["a"]]), 1)
        rsa = compared(rdms[row["a"]][upper], rdms[row["b"]][upper], settings["comparison"])
        worst["rsa"] = max(worst["rsa"], abs(rsa - row["rsa"]))
        worst["cka"] = max(worst["cka"], abs(alignment(activity[row["a"]], activity[row["b"]]) - row["cka"]))
    if settings.get("noise"):
        worst["stability"] = stability(args.folder, settings)
    print(json.dumps({"pairs": len(rows), **worst}))
    sys.exit(0 if rows and all(value <= args.tolerance for value in worst.values()) else 1)


if __name__ == "__main__":
    main()
