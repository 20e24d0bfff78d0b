#!/usr/bin/env python3
"""Trains the same small co-training problem with nct and with plain PyTorch, and compares.

nct writes its first weights and every update's batches and seed (`nct train --record`). This program reads them,
trains an independent network on them, written from the published description of the model, and compares
the losses of the first updates, the validation scores at the end, the time of an update and the peak memory.

usage: tools/parity/train.py --nct target/release/nct --shards demo/shards [--epochs 3] [--set key=value]...
(needs torch, safetensors and numpy; --shards as `nct demo` makes them)
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

RECIPE = """
name = "parity"
seed = 7
[data]
batch_size = 64
neural_batch_size = 64
[mix]
kind = "mtl"
ratio = { 1 = 1 }
[model]
vgg_type = "bn 32 M 64 M 128 128 M 128 M"
v1_model_layer = 8
hidden = 256
[loss]
loss_weighing = true
[optimizer]
kind = "sgd"
lr = 0.02
momentum = 0.75
weight_decay = 5e-4
[schedule]
scheduler = "none"
patience = 100
max_iter = EPOCHS
restore_best = false
[loader]
threads = 1
"""


# By their published names (Simonyan and Zisserman 2015, configurations A, B, D and E).
STACKS = {
    "vgg11": "64 M 128 M 256 256 M 512 512 M 512 512 M",
    "vgg13": "64 64 M 128 128 M 256 256 M 512 512 M 512 512 M",
    "vgg16": "64 64 M 128 128 M 256 256 256 M 512 512 512 M 512 512 512 M",
    "vgg19": "64 64 M 128 128 M 256 256 256 256 M 512 512 512 512 M 512 512 512 512 M",
}
NAMED = STACKS | {f"{name}_bn": f"bn {stack}" for name, stack in STACKS.items()}


def vgg_layers(nn, plan):
    """Layers of a VGG such as "bn 16 M 32 M", on three channels."""
    words = NAMED.get(plan, plan).split()
    norm = words[0] == "bn"
    layers, channels = [], 3
    for word in words[1:] if norm else words:
        if word == "M":
            layers.append(nn.MaxPool2d(2))
            continue
        layers.append(nn.Conv2d(channels, int(word), 3, padding=1))
        channels = int(word)
        layers += [nn.BatchNorm2d(channels)] if norm else []
        layers.append(nn.ReLU())
    return layers


def torch_network(nn, torch, config, sessions, classes):
    """The co-training network: a VGG cut after `v1_model_layer` layers, a Gaussian readout a session, a conv head."""

    class Readout(nn.Module):
        def __init__(self, channels, neurons):
            super().__init__()
            self.mu = nn.Parameter(torch.zeros(1, neurons, 1, 2))
            self.sigma = nn.Parameter(torch.zeros(1, neurons, 1, 2))
            self.features = nn.Parameter(torch.zeros(1, channels, 1, neurons))
            self.bias = nn.Parameter(torch.zeros(neurons))

        def forward(self, x):
            n = self.mu.shape[1]
            if self.training:
                noise = torch.randn(x.shape[0], n, 1, 2, device=x.device)
                grid = (noise * self.sigma + self.mu).clamp(-1, 1)
            else:
                grid = self.mu.clamp(-1, 1).expand(x.shape[0], n, 1, 2)
            at = nn.functional.grid_sample(x, grid, align_corners=True)
            return (at.squeeze(3) * self.features.squeeze(2)).sum(1) + self.bias

        @torch.no_grad()
        def clamp(self):
            self.mu.clamp_(-1, 1)
            self.sigma.clamp_(min=0)

    class Core(nn.Module):
        pass

    class MtlVgg(nn.Module):
        def __init__(self):
            super().__init__()
            cut = config["model"]["v1_model_layer"]
            layers = vgg_layers(nn, config["model"]["vgg_type"])
            channels = next(layer.out_channels for layer in reversed(layers) if isinstance(layer, nn.Conv2d))
            self.mtl_vgg_core = Core()
            self.mtl_vgg_core.v1_block = nn.Sequential(*layers[:cut])
            self.mtl_vgg_core.unshared_block = nn.Sequential(*layers[cut:])
            width = next(layer.out_channels for layer in reversed(layers[:cut]) if isinstance(layer, nn.Conv2d))
            self.v1_readout = nn.ModuleDict({name: Readout(width, n) for name, n in sessions.items()})
            hidden, dropout = config["model"]["hidden"], config["model"]["dropout"]
            self.classification_readout = nn.Sequential(
                nn.Conv2d(channels, hidden, 1), nn.ReLU(), nn.Dropout(dropout),
                nn.Conv2d(hidden, hidden, 1), nn.ReLU(), nn.Dropout(dropout),
                nn.Conv2d(hidden, classes, 1), nn.AdaptiveMaxPool2d(1), nn.Flatten(),
            )

        def shared(self, x):
            # Three equal channels see the sum of the kernel over them. Summing first is the same function, and rounds as
            # nct does: what is left to differ is what the two programs mean.
            first = self.mtl_vgg_core.v1_block[0]
            x = nn.functional.conv2d(x, first.weight.sum(1, keepdim=True), first.bias, padding=1)
            return self.mtl_vgg_core.v1_block[1:](x)

        def classify(self, x):
            return self.classification_readout(self.mtl_vgg_core.unshared_block(self.shared(x)))

        def respond(self, x, session):
            return nn.functional.elu(self.v1_readout[session](self.shared(x)) - 1) + 1

    return MtlVgg()


def run_nct(nct, shards, folder, recipe, sets, record):
    """Trains, and gives the run's folder."""
    out = folder / ("recorded" if record else "timed")
    command = [nct, "train", "--quiet", "--json", "--device", "cpu", "--shards", shards, "--config", recipe, "--out", out]
    command += [part for s in sets for part in ("--set", s)]
    command += ["--record", folder / "record"] if record else []
    subprocess.run([str(c) for c in command], check=True, stdout=subprocess.DEVNULL)
    return next(out.iterdir())


def step_times(run):
    """Mean milliseconds of an update in each epoch but the first, without waiting for data."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line["update_ms"] for line in lines if line["task"] == "img_classification" and "update_ms" in line][1:]


def train_torch(folder, config):
    """Trains on the recorded batches; losses by update and batch, scores, and milliseconds of an update."""
    import torch
    from safetensors import safe_open
    from safetensors.torch import load_file

    record = folder / "record"
    init = load_file(record / "init.safetensors")
    about = json.loads((record / "record.json").read_text())
    net = torch_network(torch.nn, torch, config, about["sessions"], about["classes"])
    net.load_state_dict({k: v for k, v in init.items() if not k.startswith("loss.")}, strict=True)
    log_w = {k.split(".")[1]: torch.nn.Parameter(v.clone()) for k, v in init.items() if k.startswith("loss.")}
    o = config["optimizer"]
    optimizer = torch.optim.SGD(
        [*net.parameters(), *log_w.values()], lr=o["lr"], momentum=o["momentum"], weight_decay=o["weight_decay"]
    )
    files = sorted(record.glob("update-*.safetensors"))
    cross_entropy, mse = torch.nn.functional.cross_entropy, torch.nn.functional.mse_loss
    losses, times, differ = [], [], None
    net.train()
    for path in files:
        with safe_open(path, "pt") as file:
            plan = json.loads(file.metadata()["plan"])
            batches = [
                (b, file.get_tensor(f"batch{i}.images"), file.get_tensor(f"batch{i}.targets"))
                for i, b in enumerate(plan["batches"])
            ]
            recorded = {k: file.get_tensor(k) for k in file.keys() if k.startswith("grad.")}
        start = time.perf_counter()
        torch.manual_seed(plan["seed"])
        # Parameters that once had a gradient and have none now still decay, as in the reference.
        optimizer.zero_grad(set_to_none=False)
        step_losses = []
        for batch, images, targets in batches:
            s = log_w[batch["task"]]
            if batch["task"] == "img_classification":
                loss = (torch.exp(-s) * cross_entropy(net.classify(images), targets) + 0.5 * s).squeeze()
            else:
                loss = mse(net.respond(images, batch["source"]), targets)
                loss = (0.5 * torch.exp(-s) * loss + 0.5 * s).squeeze()
            loss.backward()
            step_losses.append(loss)
        values = torch.stack(step_losses).tolist()
        if differ is None:
            named = {**dict(net.named_parameters()), **{f"loss.{k}.log_w": v for k, v in log_w.items()}}
            apart = {k: relative(named[k[5:]].grad, g) for k, g in recorded.items()}
            if any(apart.values()):
                differ = plan["update"], {k: d for k, d in apart.items() if d}
        optimizer.step()
        for readout in net.v1_readout.values():
            readout.clamp()
        times.append(1e3 * (time.perf_counter() - start))
        losses.append((plan, values))
    epochs = [[t for t, (plan, _) in zip(times, losses) if plan["epoch"] == e] for e in range(1, config["schedule"]["max_iter"] + 1)]
    times = [statistics.mean(epoch) for epoch in epochs[1:]]
    return losses, times, evaluate(torch, record, net), differ


def relative(a, b):
    """Largest difference, in units of the largest value."""
    return float((a - b).abs().max() / b.abs().max().clamp(min=1e-30))


def evaluate(torch, record, net):
    """Accuracy in percent and mean correlation over all neurons on the recorded validation data."""
    from safetensors.torch import load_file

    net.eval()
    correct = total = 0
    correlations = []
    with torch.no_grad():
        for path in sorted(record.glob("validation-*.safetensors")):
            data = load_file(path)
            name = path.stem.split("-", 1)[1]
            out = []
            for images in data["images"].split(64):
                out.append(net.respond(images, name) if "responses" in data else net.classify(images))
            out = torch.cat(out)
            if "labels" in data:
                correct += int((out.argmax(1) == data["labels"]).sum())
                total += len(out)
            else:
                x, y = out.double(), data["responses"].double()
                z = [(v - v.mean(0)) / (v.std(0, correction=0) + 1e-8) for v in (x, y)]
                correlations += (z[0] * z[1]).mean(0).tolist()
    return 100 * correct / total, sum(correlations) / len(correlations)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nct", default="target/release/nct")
    parser.add_argument("--shards", default="demo/shards")
    parser.add_argument("--epochs", type=int, default=3, help="2 at least, since the first is not timed")
    parser.add_argument("--turns", type=int, default=2, help="runs of each program, for the times")
    parser.add_argument("--set", action="append", default=[], help="passed on to nct train")
    parser.add_argument("--torch-only", metavar="FOLDER", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.torch_only:
        folder = Path(args.torch_only)
        config = tomllib.loads((folder / "config.toml").read_text())
        losses, times, scores, differ = train_torch(folder, config)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        (folder / "torch.json").write_text(json.dumps([losses, times, scores, differ, peak]))
        return
    with tempfile.TemporaryDirectory() as temporary:
        sys.exit(compare(args, Path(temporary)))


def peak_of(command):
    """Runs a program; its peak memory in MiB."""
    process = subprocess.Popen([str(c) for c in command], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{command[0]} failed")
    return usage.ru_maxrss / 1024


def compare(args, folder):
    recipe = folder / "recipe.toml"
    recipe.write_text(RECIPE.replace("EPOCHS", str(args.epochs)))
    recorded = run_nct(args.nct, args.shards, folder, recipe, args.set, record=True)
    (folder / "config.toml").write_text((recorded / "config.toml").read_text())
    # In turn, so that both see the same machine.
    nct_ms, torch_ms, peaks = [], [], []
    for turn in range(args.turns):
        out = folder / f"timed-{turn}"
        command = [args.nct, "train", "--quiet", "--device", "cpu", "--shards", args.shards, "--config", recipe]
        command += ["--out", out] + [part for s in args.set for part in ("--set", s)]
        nct_peak = peak_of(command)
        nct_ms += step_times(next(out.iterdir()))
        torch_peak = peak_of([sys.executable, __file__, "--torch-only", folder])
        losses, times, scores, differ, own_peak = json.loads((folder / "torch.json").read_text())
        torch_ms += times
        peaks.append((nct_peak, own_peak or torch_peak))
    metrics = [json.loads(line) for line in (recorded / "metrics.jsonl").read_text().splitlines()]
    last = {line["task"]: line for line in metrics if line["epoch"] == args.epochs}
    found = last["img_classification"]["validation_accuracy"], last["v1"]["validation_correlation"]
    def apart(update):
        plan, values = update
        return max(abs(v - b["loss"]) / max(abs(b["loss"]), 1e-8) for b, v in zip(plan["batches"], values))

    differences = [apart(update) for update in losses[:50]]
    worst = max(differences)
    # Both call the same kernels in the same order, so nothing differs unless they mean something else.
    print("relative difference of losses by update:", " ".join(f"{d:.0e}" for d in differences[::7]))
    if differ:
        print(f"gradients differ first at update {differ[0]}:", " ".join(f"{k} {d:.0e}" for k, d in differ[1].items()))
    ours, theirs = statistics.median(nct_ms), statistics.median(torch_ms)
    checks = [
        ("losses of the first 50 updates, relative", worst, 1e-4, f"{len(differences)} updates"),
        ("validation accuracy, in shares", abs(scores[0] - found[0]) / 100, 1e-2, f"{found[0]:.2f} % and {scores[0]:.2f} %"),
        ("validation correlation", abs(scores[1] - found[1]), 1e-2, f"{found[1]:.4f} and {scores[1]:.4f}"),
        ("time of an update over PyTorch's", ours / theirs, 1.05, f"{ours:.1f} ms and {theirs:.1f} ms"),
        ("peak memory over PyTorch's", peaks[-1][0] / peaks[-1][1], 1.0, "{:.0f} MiB and {:.0f} MiB".format(*peaks[-1])),
    ]
    for what, value, bound, detail in checks:
        print(f"{'ok  ' if value <= bound else 'FAIL'} {what}: {value:.3g} (bound {bound:g}); {detail}")
    return any(value > bound for _, value, bound, _ in checks)


if __name__ == "__main__":
    main()
