#!/usr/bin/env python3
"""Proves that weights go from nct to PyTorch and back.

nct trains a small network; PyTorch loads its weights strictly into an independent network of the same description,
and both see the validation images. PyTorch changes the weights and writes them in each of its formats; nct begins a run
with each, and the run's weights are compared bit for bit. Networks with torchvision's names are loaded into both kinds
of networks. One line a check; the exit code is 1 if one fails.

usage: tools/exchange.py --nct target/release/nct [--shards DIR]
(needs torch, safetensors and numpy; without --shards, sample data is made)
"""

import argparse
import json
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

sys.path.insert(0, str(Path(__file__).parent / "parity"))
from train import RECIPE, torch_network, vgg_layers  # noqa: E402

# Largest difference of outputs, as a part of the largest output where that is above 1: both sum in single precision,
# in different orders.
BOUND = 1e-4
SAMPLE = "--classes 3 --per-class 24 --val-per-class 8 --neural-images 60 --sessions 2 --neurons 5"
# torchvision's configurations A and E, and the layer after which the co-trained network is cut: conv3_1 of the second.
TORCHVISION = {
    "vgg11": ("64 M 128 M 256 256 M 512 512 M 512 512 M", 8),
    "vgg19_bn": ("bn 64 64 M 128 128 M 256 256 256 256 M 512 512 512 512 M 512 512 512 512 M", 17),
}
DENSE = ["model.classification_readout_type=dense", "model.avg_pool=true", "model.hidden=64"]
PLAIN = ["data.neural=", 'mix={kind="long"}']


class Torchvision(nn.Module):
    """Names, shapes and order of torchvision's VGG, with a narrower classifier."""

    def __init__(self, plan, classes, hidden=64):
        super().__init__()
        self.features = nn.Sequential(*vgg_layers(nn, plan))
        self.avgpool = nn.AdaptiveAvgPool2d(7)
        self.classifier = nn.Sequential(
            nn.Linear(512 * 7 * 7, hidden), nn.ReLU(True), nn.Dropout(),
            nn.Linear(hidden, hidden), nn.ReLU(True), nn.Dropout(),
            nn.Linear(hidden, classes),
        )

    def forward(self, x):
        return self.classifier(torch.flatten(self.avgpool(self.features(x.expand(-1, 3, -1, -1))), 1))


class Bench:
    """Runs nct in a folder, and counts what failed."""

    def __init__(self, nct, shards, folder):
        self.nct, self.folder = Path(nct).resolve(), folder
        self.shards = Path(shards).resolve() if shards else self.sample()
        self.recipe = folder / "recipe.toml"
        # Small batches, so that the running statistics get somewhere, and a rate that suits them.
        recipe = RECIPE.replace("EPOCHS", "3").replace("batch_size = 64", "batch_size = 8")
        recipe = recipe.replace("lr = 0.02", "lr = 0.0005")
        self.recipe.write_text(recipe)
        self.failed = 0

    def run(self, *args):
        command = [str(part) for part in (self.nct, *args)]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{' '.join(command)}\n{done.stderr}")
        return done

    def sample(self):
        self.run("synth", "raw", *SAMPLE.split())
        self.run("prepare", "raw", "--color", "gray")
        return self.folder / "shards"

    def train(self, name, sets):
        """A run with the settings, its record and what it said of the weights that it began with."""
        out, record = self.folder / name, self.folder / f"{name}-record"
        finals = [f"evaluation.add_final_{split}_eval=false" for split in ("train", "val", "test")]
        sets = [part for s in [*finals, *sets] for part in ("--set", s)]
        command = ["train", "--json", "--device", "cpu", "--shards", self.shards, "--config", self.recipe]
        told = self.run(*command, "--out", out, "--record", record, *sets).stderr
        said = [line for line in told.splitlines() if line.startswith("weights of ")]
        return next(out.iterdir()), record, said[0] if said else ""

    def network(self, run):
        """The weights of a run's network, through safetensors."""
        path = self.folder / "network.safetensors"
        self.run("weights", run, "--to", path, "--force")
        return load_file(path)

    def check(self, ok, what, detail):
        print(f"{'ok  ' if ok else 'FAIL'} {what}: {detail}", flush=True)
        self.failed += not ok

    def check_outputs(self, what, record, forward, tasks=("labels", "responses")):
        """Compares what both networks make of the recorded validation images."""
        for path in sorted(record.glob("validation-*.safetensors")):
            data, name = load_file(path), path.stem.split("-", 1)[1]
            if not any(task in data for task in tasks):
                continue
            with torch.no_grad():
                parts = [forward(images, name, "responses" in data) for images in data["images"].split(64)]
            apart = (torch.cat(parts) - data["outputs"]).abs().max().item()
            largest = data["outputs"].abs().max().item()
            detail = f"{apart:.1e} apart on {len(data['images'])} images, outputs up to {largest:.2f}"
            self.check(apart <= BOUND * max(1, largest), f"{what}, outputs for {name}", detail)


def same_bits(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and a.numpy().tobytes() == b.numpy().tobytes()


def mtl_forward(net):
    return lambda images, name, neural: net.respond(images, name) if neural else net.classify(images)


def nct_to_torch(bench):
    """A trained run in PyTorch. Gives the network, and what the data are like."""
    run, record, _ = bench.train("trained", [])
    about = json.loads((record / "record.json").read_text())
    config = tomllib.loads((run / "config.toml").read_text())
    net = torch_network(nn, torch, config, about["sessions"], about["classes"]).eval()
    weights = bench.network(run)
    try:
        net.load_state_dict(weights, strict=True)
        bench.check(True, "nct to PyTorch, strict", f"{len(weights)} tensors")
    except RuntimeError as error:
        bench.check(False, "nct to PyTorch, strict", str(error))
    _, record, said = bench.train("again", [f"init.from={run}", "init.strict=true", "schedule.max_iter=0"])
    bench.check(said.endswith(": all of it"), "nct to nct, strict", said.rsplit(": ", 1)[-1])
    bench.check_outputs("nct to PyTorch", record, mtl_forward(net))
    return net, about


@torch.no_grad()
def perturbed(net):
    """Changes every tensor of a network, and gives a copy of its state dict."""
    generator = torch.Generator().manual_seed(5)
    for tensor in net.state_dict().values():
        if tensor.is_floating_point():
            tensor *= 1 + 0.02 * torch.rand(tensor.shape, generator=generator)
        else:
            tensor += 3
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


def torch_to_nct(bench, net):
    state = perturbed(net)
    files = {name: bench.folder / name for name in ["zip.pth", "old.pth", "wrapped.pth.tar", "torch.safetensors"]}
    torch.save(net.state_dict(), files["zip.pth"])
    torch.save(net.state_dict(), files["old.pth"], _use_new_zipfile_serialization=False)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    wrapped = nn.DataParallel(net).state_dict()
    assert all(name.startswith("module.") for name in wrapped)
    torch.save({"epoch": 1, "state_dict": wrapped, "optimizer": optimizer.state_dict()}, files["wrapped.pth.tar"])
    save_file(state, files["torch.safetensors"])
    for name, file in files.items():
        what = f"PyTorch to nct, {name}"
        sets = [f"init.from={file}", "init.strict=true", "schedule.max_iter=0"]
        run, record, said = bench.train(f"from-{name}", sets)
        bench.check(said.endswith(": all of it"), f"{what}, strict", said.rsplit(": ", 1)[-1])
        arrived = bench.network(run)
        equal = [k for k, v in state.items() if k in arrived and same_bits(v, arrived[k])]
        detail = f"{len(equal)} of {len(state)} tensors"
        bench.check(len(equal) == len(state) == len(arrived), f"{what}, bit for bit", detail)
        total = json.loads(bench.run("weights", run, "--diff", file, "--json").stdout.splitlines()[-1])
        bench.check(total["equal"], f"{what}, nct weights --diff", f"{total['same']} of {total['tensors']} equal")
        bench.check_outputs(what, record, mtl_forward(net))


def torchvision_to_nct(bench, about):
    for name, (plan, cut) in TORCHVISION.items():
        torch.manual_seed(1)
        net = Torchvision(plan, about["classes"]).eval()
        state = perturbed(net)
        file = bench.folder / f"{name}.pth"
        torch.save(net.state_dict(), file)

        def forward(images, _name, _neural, net=net):
            return net(images)

        common = [f"init.from={file}", f"model.vgg_type={name}", "schedule.max_iter=0", *DENSE]
        plain = [*common, *PLAIN, "init.strict=true", "model.v1_model_layer=0"]
        run, record, _ = bench.train(f"{name}-plain", plain)
        arrived = bench.network(run)
        equal = sum(same_bits(v, arrived[k]) for k, v in state.items())
        detail = f"{equal} of {len(state)} tensors bit for bit"
        bench.check(equal == len(state) == len(arrived), f"torchvision's {name} to plain VGG", detail)
        bench.check_outputs(f"torchvision's {name} to plain VGG", record, forward)
        run, record, said = bench.train(f"{name}-mtl", [*common, f"model.v1_model_layer={cut}"])
        arrived = bench.network(run)

        def place(key):
            part, layer, leaf = key.split(".")
            if part == "classifier":
                return f"classification_readout.{layer}.{leaf}"
            block, start = ("v1_block", 0) if int(layer) < cut else ("unshared_block", cut)
            return f"mtl_vgg_core.{block}.{int(layer) - start}.{leaf}"

        equal = sum(same_bits(v, arrived[place(k)]) for k, v in state.items())
        fresh = [k for k in arrived if k not in {place(k) for k in state}]
        readouts = all(k.startswith("v1_readout.") for k in fresh) and f": {len(state)} tensors taken" in said
        detail = f"{equal} of {len(state)} tensors bit for bit; fresh: {len(fresh)} of the readouts"
        bench.check(equal == len(state) and readouts, f"torchvision's {name} to MTL VGG", detail)
        bench.check_outputs(f"torchvision's {name} to MTL VGG", record, forward, tasks=("labels",))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nct", default="target/release/nct")
    parser.add_argument("--shards", help="gray shards, as `nct demo` makes them; sample data if not given")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(args.nct, args.shards, Path(folder))
        net, about = nct_to_torch(bench)
        torch_to_nct(bench, net)
        torchvision_to_nct(bench, about)
        sys.exit(1 if bench.failed else 0)


if __name__ == "__main__":
    main()
