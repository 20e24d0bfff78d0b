"""Bring libtorch 2.11 into .libtorch/: fetched as pinned wheels, or one that is there already.

Every step is finished under another name and renamed, so that this can be stopped anywhere and run again.
.libtorch/VERSION is written last and says what is there.
"""

import argparse
import glob
import hashlib
import os
import re
import shutil
import subprocess
import sys
import zipfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TARGET = os.path.join(ROOT, ".libtorch")
LOCK = os.path.join(ROOT, "tools", "libtorch.lock")
VERSION = "2.11"
# What the pinned wheels are built for; pip then fetches them whatever Python runs it.
PLATFORM = ["--only-binary=:all:", "--python-version", "311", "--implementation", "cp", "--abi", "cp311",
            "--abi", "abi3", "--abi", "none"] + [
    word for tag in ("2_28", "2_27", "2_25", "2_18", "2_17", "2_12") for word in ("--platform", f"manylinux_{tag}_x86_64")
] + ["--platform", "manylinux2014_x86_64"]


def fail(text):
    sys.exit(f"setup: {text}")


def say(text):
    print(f"setup: {text}", file=sys.stderr, flush=True)


def read_lock():
    """{section: [(name, version, sha256)]}"""
    sections, current = {}, None
    with open(LOCK) as f:
        for line in f:
            line = line.strip()
            if line.startswith("["):
                current = sections.setdefault(line.strip("[]"), [])
            elif line and not line.startswith("#"):
                current.append(re.fullmatch(r"([\w.-]+)==([\w.]+) --hash=sha256:(\w{64})", line).groups())
    return sections


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        for chunk in iter(lambda: f.read(1 << 20), b""):
            digest.update(chunk)
    return digest.hexdigest()


def pip():
    """A pip that can be run, the system's or one in a private environment."""
    if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True).returncode == 0:
        return [sys.executable, "-m", "pip"]
    env = os.path.join(TARGET, "venv")
    python = os.path.join(env, "bin", "python")
    if not os.path.exists(python):
        made = subprocess.run([sys.executable, "-m", "venv", env], capture_output=True)
        if made.returncode != 0:
            shutil.rmtree(env, ignore_errors=True)
            fail("Python has neither pip nor venv; bring one with: apt install python3-pip")
    return [python, "-m", "pip"]


def fetch(name, version, digest, folder):
    """The wheel's path: from a folder of wheels, from an earlier run, or downloaded."""
    pattern = f"{name.replace('-', '_')}-{version}-*.whl"
    wheels = os.path.join(TARGET, "wheels")
    for place in filter(None, (folder, wheels)):
        for path in glob.glob(os.path.join(place, pattern)):
            if sha256(path) == digest:
                return path
            if place == folder:
                fail(f"{path} is not the file that tools/libtorch.lock pins (its SHA-256 differs)")
            os.remove(path)
    if folder:
        fail(f"{folder} holds no {pattern}")
    say(f"fetching {name} {version}")
    os.makedirs(wheels, exist_ok=True)
    partial = os.path.join(TARGET, "partial")
    shutil.rmtree(partial, ignore_errors=True)
    os.makedirs(partial)
    pinned = os.path.join(partial, "requirement.txt")
    with open(pinned, "w") as f:
        f.write(f"{name}=={version} --hash=sha256:{digest}\n")
    command = pip() + ["download", "--quiet", "--no-deps", "--require-hashes", "-r", pinned, "-d", partial]
    if subprocess.run(command + PLATFORM).returncode != 0:
        fail(f"{name} {version} could not be fetched; try again (what is there is kept), or give --wheels DIR")
    (got,) = glob.glob(os.path.join(partial, "*.whl"))
    path = os.path.join(wheels, os.path.basename(got))
    os.replace(got, path)
    return path


def unpack(path, site):
    """Adds a wheel to the tree; a marker written afterwards tells that it is whole."""
    done = os.path.join(site, f".{os.path.basename(path)}.done")
    if os.path.exists(done):
        return
    say(f"unpacking {os.path.basename(path)}")
    with zipfile.ZipFile(path) as wheel:
        for item in wheel.infolist():
            out = wheel.extract(item, site)
            mode = item.external_attr >> 16
            if mode & 0o111 and os.path.isfile(out):
                os.chmod(out, 0o755)
    open(done, "w").close()


def is_unpacked(name, version, site):
    return any(glob.glob(os.path.join(site, f".{name.replace('-', '_')}-{version}-*.whl.done")))


def replace_folder(new, target):
    old = target + ".old"
    shutil.rmtree(old, ignore_errors=True)
    if os.path.lexists(target):
        os.rename(target, old)
    os.rename(new, target)
    shutil.rmtree(old, ignore_errors=True)


def link_folder(target, links):
    """A folder of links, replaced in one step: {name: where to}"""
    new = target + ".new"
    shutil.rmtree(new, ignore_errors=True)
    os.makedirs(new)
    for name, to in links.items():
        os.symlink(os.path.relpath(to, target), os.path.join(new, name))
    return new


def lay_out(torch, extra):
    """lib/ for the linker and the loader without CUDA, cuda/ for the program to open, include/."""
    library = os.path.join(torch, "lib")
    names = ["libtorch_cpu.so", "libc10.so"]
    links = {name: os.path.join(library, name) for name in names}
    links.update({os.path.basename(path): path for path in glob.glob(os.path.join(library, "libgomp*.so*"))})
    links.update({os.path.basename(path): path for path in extra})
    lib = link_folder(os.path.join(TARGET, "lib"), links)
    # Without libtorch_cuda.so: a program linked to it would need a GPU's libraries to start.
    with open(os.path.join(lib, "libtorch.so"), "w") as f:
        f.write("INPUT(-ltorch_cpu -lc10)\n")
    replace_folder(lib, os.path.join(TARGET, "lib"))
    for name, to in (("include", os.path.join(torch, "include")), ("cuda", library)):
        new = os.path.join(TARGET, name + ".new")
        if os.path.lexists(new):
            os.remove(new)
        os.symlink(os.path.relpath(to, TARGET), new)
        os.replace(new, os.path.join(TARGET, name))


def found_version(torch):
    for name, pattern in (("build-version", r"([\d.]+)"), ("version.py", r"__version__ = '([\d.]+)")):
        path = os.path.join(torch, name)
        if os.path.exists(path):
            with open(path) as f:
                match = re.search(pattern, f.read())
            if match:
                return match.group(1)
    return None


def existing(folder):
    torch = os.path.abspath(folder)
    if not os.path.exists(os.path.join(torch, "lib", "libtorch_cpu.so")):
        fail(f"{folder} holds no lib/libtorch_cpu.so; name a libtorch folder, or torch/ within site-packages")
    version = found_version(torch)
    if version is None or not (version + ".").startswith(VERSION + "."):
        fail(f"{folder} is libtorch {version or 'of unknown version'}, and {VERSION} is needed")
    beside = glob.glob(os.path.join(os.path.dirname(torch), "nvidia", "cu*", "lib", "*.so*"))
    return torch, beside, f"{VERSION} from {torch}"


def fetched(sections, folder, keep):
    machine = os.uname().machine
    if machine != "x86_64":
        fail(f"the pinned wheels are for x86-64, and this is {machine}: bring libtorch {VERSION} and give --from DIR")
    site = os.path.join(TARGET, "site")
    os.makedirs(site, exist_ok=True)
    for name, version, digest in sections:
        if not is_unpacked(name, version, site):
            path = fetch(name, version, digest, folder)
            unpack(path, site)
            if not keep and os.path.dirname(path) == os.path.join(TARGET, "wheels"):
                os.remove(path)
    torch = os.path.join(site, "torch")
    return torch, glob.glob(os.path.join(site, "nvidia", "cu13", "lib", "*.so*")), None


def main():
    parser = argparse.ArgumentParser(prog="tools/setup", description=__doc__.splitlines()[0])
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--cpu", action="store_true", help="for the CPU (the default)")
    which.add_argument("--cuda", action="store_true", help="for NVIDIA GPUs too: about 2 GB more")
    which.add_argument("--from", dest="existing", metavar="DIR", help=f"use the libtorch {VERSION} in DIR")
    parser.add_argument("--wheels", metavar="DIR", help="take the wheels from DIR instead of fetching them")
    parser.add_argument("--keep-wheels", action="store_true", help="keep what was fetched in .libtorch/wheels")
    args = parser.parse_args()

    lock = read_lock()
    with_cmake = shutil.which("cmake") is None
    marker = os.path.join(TARGET, "VERSION")
    have = open(marker).read().strip() if os.path.exists(marker) else ""
    kind = "cuda" if args.cuda or (not args.cpu and have == "cuda") else "cpu"
    want = f"{VERSION} from {os.path.abspath(args.existing)}" if args.existing else kind
    cmake_there = not with_cmake or os.path.exists(os.path.join(TARGET, "cmake", "data", "bin", "cmake"))
    unchanged = have == want or (args.cpu is False and not args.existing and not args.cuda and have)
    if unchanged and cmake_there and os.path.exists(os.path.join(TARGET, "lib", "libtorch_cpu.so")):
        print(f"setup: libtorch {VERSION} is in place ({have})", file=sys.stderr)
        return
    if os.path.islink(TARGET):
        fail(f"{TARGET} is a link; remove it first")
    os.makedirs(TARGET, exist_ok=True)
    if with_cmake and not cmake_there:
        bring_cmake(lock["cmake"], args.wheels)
    if args.existing:
        torch, extra, _ = existing(args.existing)
    else:
        sections = lock["cpu"] + (lock["cuda"] if kind == "cuda" else [])
        torch, extra, _ = fetched(sections, args.wheels, args.keep_wheels)
    lay_out(torch, extra)
    with open(marker + ".new", "w") as f:
        f.write(want + "\n")
    os.replace(marker + ".new", marker)
    shutil.rmtree(os.path.join(TARGET, "partial"), ignore_errors=True)
    say(f"libtorch {VERSION} is in place ({want})")


def bring_cmake(pinned, folder):
    (name, version, digest), = pinned
    path = fetch(name, version, digest, folder)
    new = os.path.join(TARGET, "cmake.new")
    shutil.rmtree(new, ignore_errors=True)
    unpack(path, new)
    replace_folder(os.path.join(new, "cmake"), os.path.join(TARGET, "cmake"))
    shutil.rmtree(new, ignore_errors=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        fail("stopped; run it again to go on")
    except OSError as error:
        fail(error)
