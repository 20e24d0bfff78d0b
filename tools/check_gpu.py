#!/usr/bin/env python3
"""Checks nct on the GPUs of this machine, and measures it there.

Whether a GPU gives the same bits every time, goes on exactly where a run stopped, repeats recorded passes unchanged,
computes by kernels of nct's own what PyTorch's compute, agrees with the CPU, and learns in bfloat16 what it learns in 32
bits; several GPUs, if there are, with each other. Then the rates of the paper's networks, beside PyTorch's where this Python has it, and what is aimed at with one H200. Sample
data are made; about ten minutes on one GPU. Where there is none it says so and ends well.

usage: tools/check_gpu.py [--nct target/release/nct] [--work DIR] [--only CHECK,...] [--small] [--json FILE]
(needs nothing beside nct; bench_torch needs torch, safetensors and numpy)
"""

import argparse
import json
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
BFLOAT16 = ["--set", "numerics.precision=bf16", "--set", "numerics.channels_last=true"]
GRAPHS = ["--set", "numerics.graphs=true"]
LAYERS = ["--set", "numerics.fused=false"]
SMALL = ["--set", "data.batch_size=24", "--set", "data.neural_batch_size=24"]
# Updates in an epoch of the paper's recipe: 90,000 images in batches of 128.
EPOCH = 704
CLOCKED = ("seconds", "wait_share", "samples_per_s", "update_ms")


class Check:
    def __init__(self, args, work):
        self.args, self.work, self.rows, self.device = args, work, [], ""
        self.demo = ["--config", HERE / "configs/demo.toml", *(SMALL if args.small else [])]
        self.epochs = 2 if args.small else 6

    def say(self, state, name, detail):
        print(f"{state:8} {name:12} {detail}", flush=True)
        self.rows.append({"check": name, "state": state, "detail": detail})

    def judge(self, name, good, detail):
        self.say("ok" if good else "FAILED", name, detail)

    def nct(self, *args, launch=0):
        ranks = ["launch", "-n", launch] if launch else []
        command = [self.args.nct, *ranks, *args]
        done = subprocess.run([str(c) for c in command], capture_output=True, text=True, cwd=self.work)
        if done.returncode:
            raise RuntimeError(f"{' '.join(map(str, command))}: exit status {done.returncode}\n{done.stderr[-2000:]}")
        return done.stdout

    def training(self, out, *more, epochs=None):
        shards = ["--shards", self.work / "shards"]
        return ["train", "--quiet", "--device", "cuda", "--out", out, *shards, *self.demo,
                "--epochs", epochs or self.epochs, *more]

    def train(self, out, *more, launch=0, epochs=None):
        """The folder of a new run; one that is there already is taken as it is."""
        if not (self.work / out).exists():
            self.nct(*self.training(out, *more, epochs=epochs), launch=launch)
        return next((self.work / out).iterdir())

    def metrics(self, run):
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        return [{k: v for k, v in line.items() if k not in CLOCKED} for line in lines]

    def same(self, name, a, b, what):
        weights = [(run / "checkpoints/last.safetensors").read_bytes() for run in (a, b)]
        apart = sum(x != y for x, y in zip(*weights)) + abs(len(weights[0]) - len(weights[1]))
        lines = sum(x != y for x, y in zip(self.metrics(a), self.metrics(b)))
        good = weights[0] == weights[1] and self.metrics(a) == self.metrics(b)
        self.judge(name, good, what + ("" if good else f": {apart} bytes of weights and {lines} lines of metrics do not"))

    # What must hold.

    def check_same(self):
        self.same("same", self.train("plain"), self.train("again"), "two runs of one seed give the same bytes")

    def check_resume(self):
        # What a checkpoint holds is laid out as on the host: maps and kernels with channels innermost must find theirs.
        for kind, more in [("", []), ("-bf16", BFLOAT16)]:
            self.stopped(f"resume{kind}", self.train(f"plain{kind}", *more), self.work / f"stopped{kind}", more)

    def stopped(self, name, plain, out, more):
        shutil.rmtree(out, ignore_errors=True)
        process = subprocess.Popen([str(c) for c in [self.args.nct, *self.training(out, *more)]], cwd=self.work,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        # Two lines are those before the first update.
        while process.poll() is None and not any(p.read_text().count("\n") > 2 for p in out.glob("*/metrics.jsonl")):
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        told = process.communicate()[1]
        run = next(out.glob("*/metrics.jsonl"), None)
        if run is None:
            raise RuntimeError(told[-2000:])
        run = run.parent
        stopped = self.metrics(run)[-1]["epoch"]
        if process.returncode:
            self.nct("train", "--quiet", "--device", "cuda", "--shards", self.work / "shards", "--resume", run)
        self.same(name, run, plain, f"a run stopped after epoch {stopped} of {self.epochs} ends with the same bytes")

    def check_graphs(self):
        for kind, more in [("", []), ("-bf16", BFLOAT16)]:
            runs = self.train(f"plain{kind}", *more), self.train(f"repeated{kind}", *more, *GRAPHS)
            self.same(f"graphs{kind}", *runs, "recorded passes give the same bytes")

    def check_fused(self):
        # Of the first epoch, by small steps: rounding has not grown yet.
        small = [*BFLOAT16, "--set", 'optimizer={kind="sgd",lr=0.0001}']
        fused, layers = (self.metrics(self.train(out, *small, *more, epochs=1))
                         for out, more in [("fused", []), ("layers", LAYERS)])
        pairs = [(a["train_loss"], b["train_loss"]) for a, b in zip(fused, layers) if "train_loss" in a]
        apart = max(abs(a - b) / max(abs(b), 1e-3) for a, b in pairs)
        # Not at all: one did both.
        self.judge("fused", 0 < apart < 0.02, f"losses by kernels of nct's own and by PyTorch's differ by {apart:.1e} at most")

    def check_cpu(self):
        run, found = self.train("plain"), []
        for device in ("cpu", "cuda"):
            told = self.nct("eval", run, "--json", "--shards", self.work / "shards", "--device", device)
            rows = [json.loads(line) for line in told.splitlines()]
            found.append({(r["task"], r["split"], r["metric"]): r["value"] for r in rows})
        cpu, gpu = found
        # What is no number is so on both.
        good = [key for key in cpu if cpu[key] is not None] == [key for key in gpu if gpu[key] is not None]
        both = [key for key in cpu if None not in (cpu[key], gpu.get(key))]
        apart = {key: abs(gpu[key] - cpu[key]) / max(abs(cpu[key]), 1e-3) for key in both}
        worst = max(apart, key=apart.get)
        # One image that changes sides moves an accuracy further than rounding moves anything else.
        good = good and all(x < (0.05 if "accuracy" in key else 1e-3) for key, x in apart.items())
        self.judge("cpu", good, f"scores of GPU and CPU differ by {apart[worst]:.1e} at most ({' '.join(worst)})")

    def check_bf16(self):
        last = {}
        for name, more in [("f32", []), ("bf16", BFLOAT16)]:
            for seed in (1, 2, 3):
                run = self.train(f"{name}-{seed}", "--set", f"seed={seed}", *more, epochs=None if self.args.small else 14)
                for line in self.metrics(run)[-2:]:
                    for key in ("validation_correlation", "validation_accuracy"):
                        if key in line:
                            last.setdefault(key, {}).setdefault(name, []).append(line[key])
        for key, of in last.items():
            spread = max(max(values) - min(values) for values in of.values())
            apart = statistics.mean(of["bf16"]) - statistics.mean(of["f32"])
            told = ", ".join(f"{name} " + " ".join(f"{v:.4g}" for v in values) for name, values in of.items())
            self.judge("bf16", abs(apart) <= spread, f"{key}: {told}; means differ by {apart:.3g}, seeds by {spread:.3g}")

    def check_several(self):
        n = int(re.search(r" of (\d+)", self.device).group(1))
        if n < 2:
            return self.say("skipped", "several", "there is one GPU")
        if n == 2:
            # Of more than two numbers a ring adds up in an order that depends on where in an exchange they are, and gradients
            # are exchanged in other parcels when passes are recorded.
            runs = [self.train(f"by-{n}-{len(more)}", *more, launch=n) for more in ([], GRAPHS)]
            self.same("several", *runs, f"recorded passes of {n} GPUs give the same bytes as those done one by one")
        runs = [self.train(f"last-{n}-{i}", *BFLOAT16, launch=n) for i in (1, 2)]
        self.same("several", *runs, f"two runs of {n} GPUs in bfloat16 give the same bytes")
        # In 32 bits, curves of any two ways to sum drift apart; and Adam makes steps of rounding alone where a gradient is
        # zero, such as that of a bias before normalisation.
        double = ["--set", "numerics.precision=f64", "--set", 'optimizer={kind="sgd",lr=0.02}']
        alone, together = (self.metrics(self.train(f"double-{k}", *double, launch=k, epochs=2)) for k in (0, n))
        pairs = [(a[k], b[k]) for a, b in zip(alone, together) for k in a if k.endswith("_loss")]
        apart = max(abs(a - b) / max(abs(a), 1e-6) for a, b in pairs)
        self.judge("several", apart < 1e-6, f"losses of {n} GPUs and of one differ by {apart:.1e}, in double precision")

    # What is measured.

    def bench(self, *more):
        # A pass is recorded when it is done for the third time, and those of 32 sessions take turns; a last batch that is
        # smaller than others would be a pass of its own.
        warm = 100 if GRAPHS[1] in more else 20
        updates = ["--warm-up", 2, "--updates", 2] if self.args.small else ["--warm-up", warm, "--updates", 100]
        whole = ["--set", "data.last_batch=drop"]
        told = self.nct("bench", "train", "--json", "--device", "cuda", *updates, *BFLOAT16, *whole, *more)
        return json.loads(told)

    def recipe(self, name):
        sets = ["--set", "data.neural=mtl_monkey_dataset"]
        if not self.args.small:
            return ["--shards", self.work / "large", "--config", HERE / f"configs/{name}.toml", *sets]
        alone = ["--set", "data.images=", "--set", 'mix={kind="long"}'] if name == "v1_model" else []
        return ["--shards", self.work / "shards", *self.demo, *sets, *alone]

    def check_epoch(self):
        for name, more in [("epoch", []), ("with graphs", GRAPHS), ("not fused", [*GRAPHS, *LAYERS])]:
            found = self.bench(*self.recipe("mtl_monkey"), *more)
            parts = ", ".join(f"{t['task']} {100 * t['utilisation']:.0f} %" for t in found["tasks"])
            seconds, peak = EPOCH * found["update_ms"] / 1e3, found["device_peak_bytes"]
            self.say("measured", name, f"{found['update_ms']:.2f} ms an update: an epoch in {seconds:.2f} s (aim: 4); of "
                     f"{found['matmul_flop_per_s'] / 1e12:.0f} TFLOP/s that products reach: {parts} (aim: 45 %); waits "
                     f"{100 * found['waiting_share']:.2f} % for data (aim: 0.5); peak {'unknown' if peak is None else f'{peak / 2**30:.1f} GiB'}")

    def check_neural(self):
        for size in (24,) if self.args.small else (128, 512):
            for name, more in [("neural", []), ("with graphs", GRAPHS)]:
                sets = ["--set", f"data.neural_batch_size={size}", *more]
                rate = self.bench(*self.recipe("v1_model"), *sets)["tasks"][0]["samples_per_s"]
                self.say("measured", name, f"responses alone, batches of {size}: {rate:,.0f} images/s (aim: 100,000)")

    def check_peers(self):
        if subprocess.run([sys.executable, "-c", "import torch, safetensors; torch.zeros(1).cuda()"],
                          capture_output=True).returncode:
            return self.say("skipped", "peers", "this Python has no torch that sees a GPU, or no safetensors")
        command = [sys.executable, HERE / "tools/bench_torch/run.py", "--nct", self.args.nct, "--device", "cuda"]
        done = subprocess.run([str(c) for c in [*command, *self.recipe("mtl_monkey")]], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(done.stderr[-2000:])
        aims = {"PyTorch eager": " (aim: 1.5)", "torch.compile": " (aim: 1)"}
        for line in done.stdout.splitlines():
            aim = next((aim for name, aim in aims.items() if line.startswith(name)), "")
            self.say("measured", "peers", line + aim)

    def data(self):
        sizes = ["--classes", 4, "--per-class", 60, "--val-per-class", 10, "--neural-images", 120, "--neurons", 8]
        sets = [("shards", sizes if self.args.small else [])]
        if not self.args.small:
            # About as many neurons as were recorded, in about as many sessions.
            neural = ["--neural-images", 4000, "--sessions", 32, "--neurons", 14]
            sets.append(("large", ["--classes", 200, "--per-class", 50, *neural]))
        for name, sizes in sets:
            if not (self.work / name).exists():
                self.nct("synth", f"raw-{name}", "--quiet", *sizes)
                self.nct("prepare", f"raw-{name}", "--quiet", "--color", "gray", "--out", name)

    def run(self):
        doctor = json.loads(self.nct("doctor", "--json"))
        self.device = doctor["device"]["state"]
        if not self.device.startswith("cuda"):
            self.say("skipped", "all", f"no GPU to check: {doctor['GPU']['state']}")
            return True
        print(f"nct {doctor['nct']['state']}, libtorch {doctor['libtorch']['state']}, {self.device}")
        self.data()
        for name in self.args.only:
            try:
                getattr(self, f"check_{name}")()
            # One that goes wrong in itself must not cost what the others find: a GPU may be lent for minutes.
            except Exception as error:
                self.say("FAILED", name, f"{type(error).__name__}: {error}")
        return not any(row["state"] == "FAILED" for row in self.rows)


def main():
    every = [name.removeprefix("check_") for name in vars(Check) if name.startswith("check_")]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nct", type=Path, default=HERE / "target/release/nct")
    parser.add_argument("--work", type=Path, help="a folder for data and runs, which may be there (default: a new one)")
    parser.add_argument("--only", type=lambda text: text.split(","), default=every, help=",".join(every))
    parser.add_argument("--small", action="store_true", help="a network and data of toy size: to check these checks")
    parser.add_argument("--json", type=Path, help="write what was found")
    args = parser.parse_args()
    if unknown := set(args.only) - set(every):
        parser.error(f"no check {', '.join(unknown)}; there are {', '.join(every)}")
    args.nct = args.nct.resolve()
    with tempfile.TemporaryDirectory() as temporary:
        work = args.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        check = Check(args, work.resolve())
        try:
            good = check.run()
        finally:
            if args.json:
                found = {"device": check.device, "found": check.rows}
                args.json.write_text(json.dumps(found, indent=1) + "\n")
    sys.exit(not good)


if __name__ == "__main__":
    main()
