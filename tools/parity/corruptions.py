#!/usr/bin/env python3
"""Corrupts the same images with nct and with Python, and compares pixels, statistics and speed.

Profile i is compared with the package imagecorruptions. For profile t, which no package has, this file holds the
definitions in NumPy, SciPy, scikit-image and Pillow. Corruptions without randomness must agree pixel by pixel; random
ones are compared by how much they change an image (RMSE), the mean, the variance and the histogram of the values.
Frost is shown and not judged: nct's textures are its own. Times are of the same run, Python on one core, nct on one
and on two, in turn: the least of a few rounds each. Python's are of the images that are compared, nct's of these again
and again, so that they neither fit its caches nor are done before a second thread has started.

usage: tools/parity/corruptions.py --nct target/release/nct [--profile i|t] [--n 200] [--n-speed 10000] [--rounds 3]
                                   [--only NAMES] [--images DIR] [--sheet PNG]
(needs numpy, scipy, scikit-image, Pillow, opencv-python-headless, imagecorruptions; without --images, crops of the
photographs that come with scikit-image are used. Exits with 1 if a bound is not met.)
"""

import argparse
import io
import json
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

warnings.filterwarnings("ignore")

PAPER = ("gaussian_noise shot_noise impulse_noise defocus_blur glass_blur motion_blur zoom_blur snow frost fog "
         "brightness contrast elastic_transform pixelate jpeg_compression").split()
ALL = PAPER + "speckle_noise gaussian_blur spatter saturate".split()
FIXED = "defocus_blur zoom_blur brightness contrast pixelate jpeg_compression gaussian_blur saturate".split()

# Bounds. Fixed corruptions: mean and largest difference in levels; a value that is whole may be truncated one way or
# the other. Random ones: ratio of RMSEs, difference of means, and distance of histograms (levels by which values must
# be moved), beyond four standard errors over the images.
MEAN, MOST = 0.15, 1
RMSE, SHIFT, MOVED = 0.05, 1.0, 1.0


def photographs(folder, n):
    """n images [64, 64, 3]."""
    if folder:
        files = sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() in (".jpeg", ".jpg", ".png"))[:n]
        return np.stack([np.asarray(Image.open(f).convert("RGB").resize((64, 64), Image.BOX)) for f in files])
    from skimage import data

    pictures = [getattr(data, name)()[..., :3] for name in ("astronaut", "chelsea", "coffee", "rocket")]
    rng = np.random.default_rng(0)
    images = []
    for i in range(n):
        picture = pictures[i % len(pictures)]
        side = int(rng.integers(100, min(picture.shape[:2])))
        y, x = (int(rng.integers(0, extent - side + 1)) for extent in picture.shape[:2])
        crop = Image.fromarray(np.ascontiguousarray(picture[y:y + side, x:x + side]))
        images.append(np.asarray(crop.resize((64, 64), Image.BOX)))
    return np.stack(images)


def package():
    """imagecorruptions' functions, with what newer NumPy and scikit-image have dropped."""
    np.float_ = getattr(np, "float_", np.float64)
    from imagecorruptions import corrupt, corruptions
    from skimage.filters import gaussian

    def old_gaussian(*args, multichannel=False, **kwargs):
        return gaussian(*args, channel_axis=-1 if multichannel else None, **kwargs)

    corruptions.gaussian = old_gaussian
    return lambda name: lambda image, level: corrupt(image, corruption_name=name, severity=level)


class Tiny:
    """Profile t by its definitions: image u8, level 1 to 5, result in real values."""

    def __init__(self):
        self.rng = np.random.default_rng(1)

    def __call__(self, name):
        def apply(image, level):
            real = getattr(self, name)(image / 255.0, level - 1) if name != "jpeg_compression" else None
            if real is None:
                return self.jpeg(image, (65, 58, 50, 40, 25)[level - 1])
            return np.clip(255 * real, 0, 255).astype(np.uint8)
        return apply

    @staticmethod
    def jpeg(image, quality):
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=quality)
        return np.asarray(Image.open(file))

    @staticmethod
    def blurred(x, sigma, mode="nearest", truncate=4.0):
        sigma = (sigma, sigma) + (0,) * (x.ndim - 2)
        return ndimage.gaussian_filter(x, sigma, mode=mode, truncate=truncate)

    def gaussian_noise(self, x, s):
        return x + self.rng.normal(size=x.shape, scale=(.04, .08, .12, .15, .18)[s])

    def shot_noise(self, x, s):
        c = (250, 100, 50, 30, 15)[s]
        return self.rng.poisson(x * c) / c

    def impulse_noise(self, x, s):
        a, u = (.01, .02, .05, .08, .14)[s], self.rng.random(x.shape)
        return np.where(u < a / 2, 0, np.where(u < a, 1, x))

    def speckle_noise(self, x, s):
        return x + x * self.rng.normal(size=x.shape, scale=(.15, .2, .25, .3, .35)[s])

    def gaussian_blur(self, x, s):
        return self.blurred(x, (.5, .75, 1, 1.25, 1.5)[s])

    def defocus_blur(self, x, s):
        import cv2

        radius, sigma = ((.5, .6), (1, .1), (1.5, .1), (2.5, .01), (3, .1))[s]
        grid = np.arange(-8, 9)
        disk = (grid[:, None] ** 2 + grid[None] ** 2 <= radius ** 2).astype(np.float32)
        kernel = cv2.GaussianBlur(disk / disk.sum(), (3, 3), sigmaX=sigma)
        return ndimage.correlate(x, kernel[..., None].astype(float), mode="mirror")

    def glass_blur(self, x, s):
        sigma, d, passes = ((.1, 1, 1), (.5, 1, 1), (.6, 1, 2), (.7, 2, 1), (.9, 2, 2))[s]
        q = (255 * self.blurred(x, sigma) + 1e-9).astype(np.uint8)
        h, w = q.shape[:2]
        for _ in range(passes):
            for row in range(h - d, d, -1):
                for column in range(w - d, d, -1):
                    dx, dy = self.rng.integers(-d, d, size=2)
                    q[row, column] = q[row + dy, column + dx]
        return self.blurred(q / 255.0, sigma)

    @staticmethod
    def moved(x, radius, sigma, degrees):
        n = 2 * int(np.ceil(radius)) + 1
        weights = np.exp(-np.arange(n) ** 2 / (2 * sigma ** 2))
        out, angle = np.zeros_like(x), np.deg2rad(degrees)
        rows, columns = np.arange(x.shape[0]), np.arange(x.shape[1])
        for j, weight in enumerate(weights / weights.sum()):
            dx, dy = int(np.ceil(j * np.cos(angle) - .5)), int(np.ceil(j * np.sin(angle) - .5))
            at = np.ix_(np.clip(rows + dy, 0, x.shape[0] - 1), np.clip(columns + dx, 0, x.shape[1] - 1))
            out += weight * x[at]
        return out

    def motion_blur(self, x, s):
        radius, sigma = ((10, 1), (10, 1.5), (10, 2), (10, 2.5), (12, 3))[s]
        return np.floor(255 * self.moved(x, radius, sigma, self.rng.uniform(-45, 45)) + .5) / 255

    @staticmethod
    def zoomed(x, factor):
        n = x.shape[0]
        cut = int(np.ceil(n / factor))
        top = (n - cut) // 2
        part = x[top:top + cut, top:top + cut]
        out = ndimage.zoom(part, (factor, factor) + (1,) * (x.ndim - 2), order=1)
        trim = (out.shape[0] - n) // 2
        return out[trim:trim + n, trim:trim + n]

    def zoom_blur(self, x, s):
        n = (7, 12, 16, 21, 26)[s]
        return (x + sum(self.zoomed(x, 1 + k * .01) for k in range(n))) / (n + 1)

    def snow(self, x, s):
        mean, std, zoom, threshold, radius, sigma, mix = (
            (.1, .2, 1, .6, 8, 3, .8), (.1, .2, 1, .5, 10, 4, .8), (.15, .3, 1.75, .55, 10, 4, .7),
            (.25, .3, 2.25, .6, 12, 6, .65), (.3, .3, 1.25, .65, 14, 12, .6))[s]
        layer = self.zoomed(self.rng.normal(mean, std, x.shape[:2]), zoom)
        layer[layer < threshold] = 0
        layer = np.floor(255 * np.clip(layer, 0, 1))
        layer = np.floor(self.moved(layer, radius, sigma, self.rng.uniform(-135, -45)) + .5)[..., None] / 255
        gray = (x @ [.299, .587, .114])[..., None]
        return mix * x + (1 - mix) * np.maximum(x, 1.5 * gray + .5) + layer + np.rot90(layer, 2)

    def fog(self, x, s):
        from imagecorruptions.corruptions import plasma_fractal

        amount, decay = ((.4, 3), (.7, 3), (1, 2.5), (1.5, 2), (2, 1.75))[s]
        cloud = plasma_fractal(mapsize=64, wibbledecay=decay)[..., None]
        return (x + amount * cloud) * x.max() / (x.max() + amount)

    @staticmethod
    def toned(x, change):
        from skimage.color import hsv2rgb, rgb2hsv

        hsv = rgb2hsv(x)
        change(hsv)
        return hsv2rgb(np.clip(hsv, 0, 1))

    def brightness(self, x, s):
        def change(hsv):
            hsv[..., 2] += (.1, .2, .3, .4, .5)[s]
        return self.toned(x, change)

    def saturate(self, x, s):
        def change(hsv):
            a, b = ((.3, 0), (.1, 0), (2, 0), (5, .1), (30, .2))[s]
            hsv[..., 1] = a * hsv[..., 1] + b
        return self.toned(x, change)

    def contrast(self, x, s):
        mean = x.mean(axis=(0, 1))
        return (x - mean) * (.4, .3, .2, .1, .05)[s] + mean

    def elastic_transform(self, x, s):
        n = 64
        alpha, sigma, shift = ((0, 0, .08), (.05, .3, .06), (.1, .08, .06), (.1, .03, .03), (.16, .03, .02))[s]
        points = np.array([[53, 53], [53, 11], [11, 11]], float)
        moved = points + self.rng.uniform(-n * shift, n * shift, points.shape)
        one = np.ones((3, 1))
        back = np.linalg.solve(np.hstack([moved, one]), points).T
        ys, xs = np.mgrid[:n, :n].astype(float)
        from_x, from_y = (row[0] * xs + row[1] * ys + row[2] for row in back)
        x = self.sampled(x, from_y, from_x, "mirror")
        if alpha:
            dx, dy = (n * alpha * self.blurred(self.rng.uniform(-1, 1, (n, n)), n * sigma, "reflect", 3)
                      for _ in range(2))
            x = self.sampled(x, ys + dy, xs + dx, "reflect")
        return x

    @staticmethod
    def sampled(x, ys, xs, mode):
        planes = [ndimage.map_coordinates(x[..., c], [ys, xs], order=1, mode=mode) for c in range(3)]
        return np.stack(planes, -1)

    def pixelate(self, x, s):
        image = Image.fromarray((255 * x).round().astype(np.uint8))
        n = int(64 * (.9, .8, .7, .6, .5)[s])
        # Exact bytes: half a level keeps truncation from touching them.
        return (np.asarray(image.resize((n, n), Image.BOX).resize((64, 64), Image.BOX)) + .5) / 255


def with_nct(program, name, images, profile, threads, output=None):
    """Corrupted images [severity, n, 64, 64, 3], unless the output is given, and seconds an image and severity."""
    with tempfile.TemporaryDirectory() as folder:
        source, made = Path(folder) / "images", output or Path(folder) / "corrupted"
        source.write_bytes(images)
        command = [program, "corrupt-raw", source, made, "--corruptions", name, "--profile", profile,
                   "--threads", str(threads)]
        lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
        seconds = sum(json.loads(line)["seconds"] for line in lines) / (5 * (len(images) // (3 * 64 * 64)))
        if output:
            return seconds
        return np.fromfile(made, np.uint8).reshape(5, -1, 3, 64, 64).transpose(0, 1, 3, 4, 2)


def with_python(apply, images):
    """Corrupted images [severity, n, 64, 64, 3], and seconds an image and severity."""
    start = time.perf_counter()
    made = [[np.uint8(apply(image, level)) for image in images] for level in range(1, 6)]
    return np.array(made), (time.perf_counter() - start) / (5 * len(images))


def compared(name, images, python, nct):
    """What differs between two [5, n, 64, 64, 3], the largest over the severities, and whether it is too much."""
    if name in FIXED:
        off = np.abs(python.astype(int) - nct)
        mean, most = off.mean(axis=(1, 2, 3, 4)).max(), off.max()
        return f"mean {mean:.4f}, most {most}", mean > MEAN or most > MOST
    n = len(images)
    python, nct = (made.reshape(5, n, -1) for made in (python, nct))
    before = images.reshape(1, n, -1).astype(float)
    squares = [((made - before) ** 2).mean(2) for made in (python, nct)]
    means = [made.mean(2) for made in (python, nct)]
    ratio = np.sqrt(squares[1].mean(1) / squares[0].mean(1))
    ratio_error = (squares[1] - squares[0]).std(1) / squares[0].mean(1) / 2 / np.sqrt(n)
    shift = means[1].mean(1) - means[0].mean(1)
    shift_error = (means[1] - means[0]).std(1) / np.sqrt(n)
    variance = nct.reshape(5, -1).var(1) / python.reshape(5, -1).var(1)
    counts = [np.stack([np.bincount(level.reshape(-1), minlength=256) for level in made]) for made in (python, nct)]
    sums = [np.cumsum(count / count.sum(1, keepdims=True), axis=1) for count in counts]
    moved = np.abs(sums[0] - sums[1]).sum(1)
    beyond = [np.abs(ratio - 1) > RMSE + 4 * ratio_error, np.abs(shift) > SHIFT + 4 * shift_error,
              moved > MOVED + 4 * shift_error]

    def worst(values, middle=0.0):
        return values[np.argmax(np.abs(values - middle))]

    text = (f"RMSE x {worst(ratio, 1):.3f}, mean {worst(shift):+.2f} (standard error {shift_error.max():.2f}), "
            f"variance x {worst(variance, 1):.3f}, histogram {moved.max():.2f}")
    return text, name != "frost" and np.any(beyond)


def sheet(path, image, python, nct):
    """For the eye: Python's five severities beside nct's, a row each corruption."""
    rows = [np.concatenate([*made[:, 0], image, *nct[name][:, 0]], 1) for name, made in python.items()]
    Image.fromarray(np.concatenate(rows)).resize((1408, 128 * len(rows)), Image.NEAREST).save(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nct", required=True)
    parser.add_argument("--profile", choices=["i", "t"], default="i")
    parser.add_argument("--n", type=int, default=200, help="images")
    parser.add_argument("--n-speed", type=int, default=10000, help="images for nct's times")
    parser.add_argument("--rounds", type=int, default=3, help="times are the least of so many")
    parser.add_argument("--only", help="these corruptions, by commas")
    parser.add_argument("--n-glass", type=int, default=30, help="images for glass blur, a plain loop in Python")
    parser.add_argument("--images", help="folder of images instead of scikit-image's")
    parser.add_argument("--sheet", help="write a picture of one image, Python's to the left")
    args = parser.parse_args()
    images = photographs(args.images, args.n)
    reference = package()
    if args.profile == "t":
        reference = Tiny()
    np.random.seed(0)
    made, ours, bad, times = {}, {}, [], {}
    planes = np.ascontiguousarray(images.transpose(0, 3, 1, 2)).tobytes()
    many = (planes * -(-args.n_speed // len(images)))[:args.n_speed * len(planes) // len(images)]
    print(f"profile {args.profile}, {len(images)} images, 5 severities; ms an image and severity\n")
    print("| corruption | difference | Python | nct | ratio | nct, 2 threads | ratio |\n|---|---|---|---|---|---|---|")
    for name in args.only.split(",") if args.only else ALL:
        if args.profile == "t" and name in ("frost", "spatter"):
            continue
        apply = reference(name)
        apply(images[0], 1)
        shown = images[:args.n_glass] if name == "glass_blur" else images
        ours[name], again = (with_nct(args.nct, name, planes, args.profile, threads) for threads in (1, 2))
        assert (ours[name] == again).all(), f"{name}: the number of threads changed a byte"
        rounds = []
        for turn in range(1 if name == "glass_blur" else args.rounds):
            result, python = with_python(apply, shown)
            # Random corruptions draw on: the first ones are compared.
            made[name] = result if turn == 0 else made[name]
            rounds.append([python] + [with_nct(args.nct, name, many, args.profile, threads, "/dev/null")
                                      for threads in (1, 2)])
        times[name] = seconds = np.min(rounds, axis=0)
        text, wrong = compared(name, shown, made[name], ours[name][:, :len(shown)])
        bad += [name] if wrong else []
        row(name, text + (" **beyond its bound**" if wrong else ""), seconds)
    # Glass blur is a plain loop in Python, and most of its time.
    for left_out in ([], ["glass_blur"]):
        counted = [times[name] for name in PAPER if name in times and name not in left_out]
        title = f"all {len(counted)} of the paper" + (" but glass_blur" if left_out else "")
        if not args.only:
            row(title, "", np.sum(counted, axis=0))
    if args.sheet:
        sheet(args.sheet, images[0], made, ours)
    if bad:
        sys.exit("beyond their bounds: " + ", ".join(bad))


def row(name, text, seconds):
    python, one, two = (1000 * s for s in seconds)
    print(f"| {name} | {text} | {python:.3f} | {one:.4f} | {python / one:.0f}x | {two:.4f} | {python / two:.0f}x |", flush=True)


if __name__ == "__main__":
    main()
