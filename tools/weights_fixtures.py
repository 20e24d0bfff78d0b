#!/usr/bin/env python3
"""Regenerate tests/data/weights-*.pth: small files as torch.save writes them. usage: weights_fixtures.py (needs torch)"""
import os
from collections import OrderedDict

import torch

OUT = os.path.join(os.path.dirname(__file__), "..", "tests", "data")


class Evil:
    """Would run a command, were the file unpickled by Python."""

    def __reduce__(self):
        return (os.system, ("true",))


def tensors():
    count = torch.arange(6).reshape(2, 3)
    base = torch.arange(24.0).reshape(4, 6)
    named = OrderedDict(
        (name, count.to(dtype))
        for name, dtype in [
            ("f32", torch.float32),
            ("f64", torch.float64),
            ("f16", torch.float16),
            ("bf16", torch.bfloat16),
            ("i64", torch.int64),
            ("i32", torch.int32),
            ("u8", torch.uint8),
        ]
    )
    named["bool"] = torch.tensor([True, False])
    named["module.parameter"] = torch.nn.Parameter(torch.tensor([0.5, -0.5]))
    named["base"] = base
    named["transposed"] = base.t()
    named["strided"] = base[1::2, 2:5:2]
    named["expanded"] = torch.tensor([1.0, 2.0]).expand(3, 2)
    named["scalar"] = torch.tensor(7)
    named["empty"] = torch.zeros(0, 3)
    named["_model.features.intermediate_out"] = torch.zeros(1)
    named._metadata = OrderedDict([("", {"version": 1}), ("bn", {"version": 2})])
    return named


def save(content, name, zipped=True):
    torch.save(content, os.path.join(OUT, f"weights-{name}.pth"), _use_new_zipfile_serialization=zipped)


if __name__ == "__main__":
    save(tensors(), "zip")
    save(tensors(), "old", zipped=False)
    a = OrderedDict({"a.weight": torch.ones(2)})
    save({"epoch": 3, "state_dict": a, "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}, "lr": 0.1}}, "nested")
    save({"teacher": a, "student": a}, "several")
    save({"a": torch.ones(2), "b": Evil()}, "evil")
