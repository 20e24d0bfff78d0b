#!/usr/bin/env python3
"""Regenerate tests/data/weights-*: small files as torch.save writes them. usage: weights_fixtures.py (needs torch)"""
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


def filled(shapes):
    """A state dict of the given shapes, each tensor with values of its own; variances are positive."""
    named = OrderedDict()
    for k, (name, shape) in enumerate(shapes):
        if name.endswith("num_batches_tracked"):
            named[name] = torch.tensor(40 + k)
        else:
            n = torch.Size(shape).numel()
            values = torch.sin(torch.arange(n) * 0.7 + k).reshape(shape) * 0.3
            named[name] = values + 1 if name.endswith("running_var") else values
    return named


def vgg(first, second, head, head_shapes):
    """Names and shapes of the network "bn 4 M 4 M"; its two convolutions are called `first` and `second`."""
    for (prefix, layer), channels in [(first, 3), (second, 4)]:
        yield f"{prefix}.{layer}.weight", (4, channels, 3, 3)
        yield f"{prefix}.{layer}.bias", (4,)
        for leaf in ["weight", "bias", "running_mean", "running_var"]:
            yield f"{prefix}.{layer + 1}.{leaf}", (4,)
        yield f"{prefix}.{layer + 1}.num_batches_tracked", ()
    for layer, shape in zip([0, 3, 6], head_shapes):
        yield f"{head}.{layer}.weight", shape
        yield f"{head}.{layer}.bias", shape[:1]


def readouts(sessions, channels, neurons):
    for session in sessions:
        yield f"v1_readout.{session}.mu", (1, neurons, 1, 2)
        yield f"v1_readout.{session}.sigma", (1, neurons, 1, 2)
        yield f"v1_readout.{session}.features", (1, channels, 1, neurons)
        yield f"v1_readout.{session}.bias", (neurons,)


def save(content, name, zipped=True):
    name = name if "." in name else f"{name}.pth"
    torch.save(content, os.path.join(OUT, f"weights-{name}"), _use_new_zipfile_serialization=zipped)


if __name__ == "__main__":
    save(tensors(), "zip")
    save(tensors(), "old", zipped=False)
    a = OrderedDict({"a.weight": torch.ones(2)})
    save({"epoch": 3, "state_dict": a, "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}, "lr": 0.1}}, "nested")
    save({"teacher": a, "student": a}, "several")
    save({"a": torch.ones(2), "b": Evil()}, "evil")
    # torchvision's names: linear layers on the map averaged to 7 x 7.
    dense = [(6, 4 * 7 * 7), (6, 6), (3, 6)]
    save(filled(vgg(("features", 0), ("features", 4), "classifier", dense)), "torchvision")
    # A checkpoint of data-parallel training in the old format, of a network within another module. The sessions are
    # those of the sample data.
    conv = [(6, 4, 1, 1), (6, 6, 1, 1), (3, 6, 1, 1)]
    core = "mtl_vgg_core"
    mtl = vgg((f"{core}.v1_block", 0), (f"{core}.unshared_block", 0), "classification_readout", conv)
    shapes = [*mtl, *readouts(["3631896544452", "3631896544453"], 4, 5)]
    wrapped = OrderedDict((f"module.net.{name}", value) for name, value in filled(shapes).items())
    optimizer = {"state": {0: {"momentum_buffer": torch.ones(2)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    save({"epoch": 3, "state_dict": wrapped, "optimizer": optimizer}, "wrapped.pth.tar", zipped=False)
