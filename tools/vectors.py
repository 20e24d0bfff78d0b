#!/usr/bin/env python3
"""Writes what PyTorch computes, for tests/vectors/: optimisers over a hundred updates, learning-rate schedules.

usage: tools/vectors.py          (needs torch)
"""

import json
import math
from pathlib import Path

import torch

FOLDER = Path(__file__).parent.parent / "tests" / "vectors"


def gradient(step, i):
    """Of element i at an update, counted from 0."""
    return math.sin(0.7 * step + 1.3 * i) + 0.1 * i - 0.2


def optimised(kind, options, groups=None):
    """Weights after 1, 10 and 100 updates of a vector and a matrix with four elements together."""
    a = torch.nn.Parameter(torch.tensor([0.5, -1.0]))
    b = torch.nn.Parameter(torch.tensor([[2.0], [0.25]]))
    params = [{"params": [a]}, {"params": [b], **(groups or {})}]
    optimizer = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[kind](
        params, **options
    )
    after = {}
    for step in range(100):
        a.grad = torch.tensor([gradient(step, 0), gradient(step, 1)])
        b.grad = torch.tensor([[gradient(step, 2)], [gradient(step, 3)]])
        optimizer.step()
        if step + 1 in (1, 10, 100):
            after[step + 1] = [float(v) for p in (a, b) for v in p.detach().flatten()]
    settings = {"kind": kind, **options}
    if groups:
        settings["groups"] = [{"fragment": "b", **groups}]
    return {"settings": settings, "after": after}


def scheduled(kind, make, n):
    """Learning rate of each of n updates that starts at 0.1, or has it as its largest."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = make(optimizer)
    rates = []
    for step in range(n):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if step + 1 < n:
            scheduler.step()
    return {"scheduler": kind, "rates": rates}


def main():
    torch.set_default_dtype(torch.float32)
    optimisers = [
        optimised("sgd", {"lr": 0.05, "weight_decay": 0.0}),
        optimised("sgd", {"lr": 0.1, "momentum": 0.75, "weight_decay": 5e-4}),
        optimised("sgd", {"lr": 0.02, "momentum": 0.9, "weight_decay": 1e-2, "nesterov": True}),
        optimised("sgd", {"lr": 0.02, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.0}),
        optimised("sgd", {"lr": 0.1, "momentum": 0.75, "weight_decay": 5e-4}, {"lr": 0.01, "weight_decay": 0.0}),
        optimised("adam", {"lr": 5e-4, "weight_decay": 5e-4}),
        optimised("adam", {"lr": 3e-3, "betas": [0.8, 0.99], "eps": 1e-6, "weight_decay": 0.0, "amsgrad": True}),
        optimised("adamw", {"lr": 3e-3, "weight_decay": 0.05}),
        optimised("adamw", {"lr": 3e-3, "weight_decay": 0.05, "amsgrad": True}, {"lr": 1e-3}),
    ]
    schedules = [
        scheduled("cosine", lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=40, eta_min=1e-4), 40),
        scheduled("one_cycle", lambda o: torch.optim.lr_scheduler.OneCycleLR(o, max_lr=0.1, total_steps=40), 40),
    ]
    FOLDER.mkdir(exist_ok=True)
    for name, vectors in (("optimizers", optimisers), ("schedules", schedules)):
        (FOLDER / f"{name}.json").write_text(json.dumps(vectors, indent=1) + "\n")


if __name__ == "__main__":
    main()
