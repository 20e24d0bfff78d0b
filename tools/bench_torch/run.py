#!/usr/bin/env python3
"""Times the same update with nct and with plain PyTorch, in one run: eager and compiled.

The batches are nct's own (`nct train --record`); PyTorch has a few of them on the device already, in its fastest layout,
and nothing but the update is timed: forward and backward of every batch, and the optimiser's step. nct is timed by
`nct bench train`, with its loader running. Both read the losses of 16 updates at once, and wait for the device at the end.
The programs take turns, and the medians of the turns are compared.

usage: tools/bench_torch/run.py --nct target/release/nct --shards demo/shards [--config R] [--set key=value]...
       [--device cpu|cuda] [--precision f32|bf16] [--updates 20] [--turns 2]
(needs torch, safetensors and numpy; the network is tools/parity/train.py's: a conv head and Gaussian readouts)
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "parity"))
from train import torch_network  # noqa: E402

# Updates that are recorded, and used again and again.
RECORDED = 4
WARM_UP = 5
# Updates whose losses are read together.
AT_ONCE = 16


def record(args, folder):
    """The settings in full, first weights, and a few updates' batches."""
    out, sets = folder / "runs", [part for s in args.set for part in ("--set", s)]
    command = [args.nct, "train", "--quiet", "--device", "cpu", "--shards", args.shards, "--config", args.config]
    command += ["--out", out, "--record", folder / "record", *sets]
    process = subprocess.Popen([str(c) for c in command], stderr=subprocess.PIPE, text=True)
    enough = folder / "record" / f"update-{RECORDED:06}.safetensors"
    while process.poll() is None and not enough.exists():
        time.sleep(0.1)
    process.terminate()
    told = process.communicate()[1]
    if not (folder / "record" / f"update-{RECORDED - 1:06}.safetensors").exists():
        sys.exit(f"nct recorded no updates: {told}")
    return tomllib.loads((next(out.iterdir()) / "config.toml").read_text())


def nct_update_ms(args):
    sets = [f"numerics.precision={args.precision}", f"numerics.channels_last={str(args.device == 'cuda').lower()}", *args.set]
    command = [args.nct, "bench", "train", "--json", "--device", args.device, "--shards", args.shards]
    command += ["--config", args.config, "--updates", args.updates, "--warm-up", WARM_UP]
    command += [part for s in sets for part in ("--set", s)]
    told = subprocess.run([str(c) for c in command], check=True, capture_output=True, text=True).stdout
    return json.loads(told)["update_ms"]


class TorchUpdate:
    """One update of the recorded problem, on the device."""

    def __init__(self, torch, args, config, folder, compiled):
        from safetensors import safe_open
        from safetensors.torch import load_file

        self.torch, self.device = torch, torch.device(args.device)
        self.bf16 = args.precision == "bf16"
        about = json.loads((folder / "record.json").read_text())
        init = load_file(folder / "init.safetensors")
        net = torch_network(torch.nn, torch, config, about["sessions"], about["classes"])
        net.load_state_dict({k: v for k, v in init.items() if not k.startswith("loss.")}, strict=True)
        self.net = net.to(self.device, memory_format=torch.channels_last).train()
        self.log_w = {
            k.split(".")[1]: torch.nn.Parameter(v.to(self.device)) for k, v in init.items() if k.startswith("loss.")
        }
        o = config["optimizer"]
        self.optimizer = torch.optim.SGD(
            [*net.parameters(), *self.log_w.values()], lr=1e-4, momentum=o.get("momentum", 0),
            weight_decay=o.get("weight_decay", 0), foreach=True,
        )
        self.loss = torch.compile(self.loss_of) if compiled else self.loss_of
        self.batches, self.losses = [], []
        for path in sorted(folder.glob("update-*.safetensors"))[:RECORDED]:
            with safe_open(path, "pt") as file:
                plan = json.loads(file.metadata()["plan"])
                load = lambda i, what: file.get_tensor(f"batch{i}.{what}").to(self.device)
                self.batches.append([
                    (b["task"], b["source"], load(i, "images").contiguous(memory_format=torch.channels_last), load(i, "targets"))
                    for i, b in enumerate(plan["batches"])
                ])

    def loss_of(self, task, source, images, targets):
        torch, s = self.torch, self.log_w[task]
        functional = torch.nn.functional
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            out = self.net.classify(images) if task == "img_classification" else self.net.respond(images, source)
        if task == "img_classification":
            return (torch.exp(-s) * functional.cross_entropy(out.float(), targets) + 0.5 * s).squeeze()
        return (0.5 * torch.exp(-s) * functional.mse_loss(out.float(), targets) + 0.5 * s).squeeze()

    def times(self, n):
        """Milliseconds of an update, of `n`."""
        self.settle()
        start = time.perf_counter()
        for number in range(n):
            self.once(number)
        self.settle()
        return 1e3 * (time.perf_counter() - start) / n

    def settle(self):
        if self.device.type == "cuda":
            self.torch.cuda.synchronize()

    def once(self, number):
        self.optimizer.zero_grad(set_to_none=False)
        losses = []
        for batch in self.batches[number % len(self.batches)]:
            loss = self.loss(*batch)
            loss.backward()
            losses.append(loss.detach())
        self.optimizer.step()
        for readout in self.net.v1_readout.values():
            readout.clamp()
        self.losses += losses
        # As seldom as nct does.
        if len(self.losses) >= AT_ONCE * len(losses):
            self.torch.stack(self.losses).tolist()
            self.losses.clear()


def torch_update_ms(torch, args, config, folder, compiled):
    update = TorchUpdate(torch, args, config, folder / "record", compiled)
    # Every session has a graph of its own to compile.
    for number in range(max(WARM_UP, RECORDED)):
        update.once(number)
    return update.times(args.updates)


def main():
    import torch

    here = Path(__file__).resolve().parent.parent.parent
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nct", default="target/release/nct")
    parser.add_argument("--shards", default="demo/shards")
    parser.add_argument("--config", default=str(here / "configs/mtl_monkey.toml"))
    parser.add_argument("--set", action="append", default=[], help="passed on to nct")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=["cpu", "cuda"])
    parser.add_argument("--precision", choices=["f32", "bf16"])
    parser.add_argument("--updates", type=int, default=20)
    parser.add_argument("--turns", type=int, default=2)
    args = parser.parse_args()
    args.precision = args.precision or ("bf16" if args.device == "cuda" else "f32")
    name = torch.cuda.get_device_name() if args.device == "cuda" else f"{torch.get_num_threads()} threads"
    print(f"PyTorch {torch.__version__} on {args.device} ({name}), {args.precision}, channels last")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        config = record(args, folder)
        times = {"nct": [], "PyTorch eager": [], "torch.compile": []}
        for _ in range(args.turns):
            times["nct"].append(nct_update_ms(args))
            times["PyTorch eager"].append(torch_update_ms(torch, args, config, folder, compiled=False))
            try:
                times["torch.compile"].append(torch_update_ms(torch, args, config, folder, compiled=True))
            except Exception as error:  # A missing compiler says so in its own words.
                print(f"torch.compile: {str(error).splitlines()[0]}")
                times.pop("torch.compile", None)
                break
    ours = statistics.median(times["nct"])
    for program, found in times.items():
        median = statistics.median(found)
        print(f"{program:14} {median:9.2f} ms an update, {median / ours:6.3f} of nct's time")


if __name__ == "__main__":
    main()
