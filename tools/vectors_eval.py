#!/usr/bin/env python3
"""Writes what numpy makes of the formulas of docs/metrics.md, for tests/vectors/eval.json.

usage: tools/vectors_eval.py          (needs numpy)
"""

import json
from pathlib import Path

import numpy as np

FILE = Path(__file__).parent.parent / "tests" / "vectors" / "eval.json"


def corr(a, b):
    """Pearson correlation down each column, deviations plus 1e-8; 0 where that is not a number."""
    with np.errstate(invalid="ignore"):
        a = (a - a.mean(0)) / (a.std(0) + 1e-8)
        b = (b - b.mean(0)) / (b.std(0) + 1e-8)
        return np.nan_to_num((a * b).mean(0))


def neural(name, rng, repeats, n_neurons, shuffle=True):
    """Scores of a session whose image number i was shown repeats[i] times."""
    n_images = len(repeats)
    signal = rng.gamma(2.0, 1.5, (n_images, n_neurons))
    guess = np.abs(0.7 * signal + rng.normal(0, 0.8, signal.shape)) + 0.05
    signal[:, 0] = 0  # a silent neuron
    signal[:, 1] = 3  # one that no image changes
    order = [i for i, r in enumerate(repeats) for _ in range(r)]
    if shuffle:
        order = rng.permutation(order)
    order = np.array(order)
    recorded = rng.poisson(signal[order]).astype(np.float32)
    predicted = guess[order].astype(np.float32)
    y, p = recorded.astype(np.float64), predicted.astype(np.float64)
    scores = {
        "correlation": corr(p, y),
        "loss": (p - y * np.log(p + 1e-12)).sum(0),
        "mse": ((p - y) ** 2).mean(0),
    }
    groups = [np.flatnonzero(order == i) for i in range(n_images) if repeats[i] > 1]
    summary = {}
    if len(groups) > 1:
        mean_y = np.stack([y[g].mean(0) for g in groups])
        mean_p = np.stack([p[g].mean(0) for g in groups])
        scores["correlation_to_average"] = corr(mean_p, mean_y)
        others = []
        for g in groups:
            for j in g:
                others.append(y[[k for k in g if k != j]].mean(0))
        every = np.concatenate(groups)
        scores["oracle"] = corr(np.stack(others), y[every])
        noise0 = np.stack([y[g].var(0) for g in groups]).mean(0)
        noise1 = np.stack([y[g].var(0, ddof=1) for g in groups]).mean(0)
        signal_var = mean_y.var(0)
        with np.errstate(invalid="ignore", divide="ignore"):
            scores["oracle_corrected"] = np.nan_to_num(signal_var / np.sqrt(signal_var * (signal_var + noise0)))
            total = y[every].var(0, ddof=1)
            scores["explainable_variance"] = (total - noise1) / (total + 1e-9)
            error = ((p - y)[every] ** 2).mean(0)
            feve = 1 - (error - noise1) / (total - noise1)
        scores["feve"] = np.where(total > noise1, feve, np.nan)
        for form in ("oracle", "oracle_corrected"):
            slope = np.linalg.lstsq(scores[form][:, None], scores["correlation"], rcond=None)[0][0]
            summary["fraction_" + form] = float(slope)
        summary["feve_neurons"] = float((total > noise1).sum())
    summary["repeated_images"] = float(len(groups))
    for metric, values in scores.items():
        finite = values[np.isfinite(values)]
        summary[metric] = float(finite.sum() if metric == "loss" else finite.mean())
    return {
        "name": name,
        "n_neurons": n_neurons,
        "images": [int(i) * 10 + 3 for i in order],
        "predicted": [float(v) for v in predicted.ravel()],
        "recorded": [float(v) for v in recorded.ravel()],
        "neurons": {m: [None if np.isnan(v) else float(v) for v in values] for m, values in scores.items()},
        "summary": summary,
    }


def classes(rng, n, n_classes):
    """Scores of logits, over all classes and over the first half of them."""
    logits = rng.normal(0, 1.5, (n, n_classes)).astype(np.float32)
    labels = rng.integers(0, n_classes, n)
    logits[np.arange(n), labels] += 1.0
    found = []
    for m in (n_classes, n_classes // 2):
        kept = labels < m
        x, y = logits[kept][:, :m].astype(np.float64), labels[kept]
        order = np.argsort(-x, axis=1, kind="stable")
        confusion = np.zeros((m, m), int)
        np.add.at(confusion, (y, order[:, 0]), 1)
        loss = np.log(np.exp(x).sum(1)) - x[np.arange(len(y)), y]
        found.append(
            {
                "classes": m,
                "left_out": int((~kept).sum()),
                "accuracy": 100.0 * float((order[:, 0] == y).mean()),
                "top5_accuracy": 100.0 * float((order[:, :5] == y[:, None]).any(1).mean()),
                "loss": float(loss.mean()),
                "confusion": confusion.tolist(),
            }
        )
    return {"n_classes": n_classes, "logits": [float(v) for v in logits.ravel()], "labels": labels.tolist(), "scores": found}


def main():
    rng = np.random.default_rng(11)
    sessions = [
        neural("equal repeats", rng, [4] * 7, 5),
        neural("uneven repeats and single trials", rng, [1, 2, 5, 1, 3, 2, 1, 4], 6),
        neural("no repeats", rng, [1] * 9, 4),
        neural("one repeated image", rng, [3, 1, 1, 1], 3),
    ]
    FILE.write_text(json.dumps({"sessions": sessions, "classes": classes(rng, 40, 14)}, indent=None) + "\n")


if __name__ == "__main__":
    main()
