"""Random inputs: flags, overrides, configs, the files of runs, raw files and images."""

import functools
import gzip
import io
import json
import random
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from damage import image
from lab import OTHER, WRONG, Case, Done, Fault, Lab, Trial, check_message, check_success
from PIL import Image
from runs import link_copy, recipe, reference

EXPERIMENTS = ("chinese_cnn", "dense_cnn", "kaggle_cnn", "mnist_cnn", "mse_cnn")
BATCH = 50  # inputs of a case
REAL = 40  # one in so many is a process of its own, the others share one

TEXTS = (
    "", " ", "0", "-1", "1e999", "nan", "inf", "-inf", "9" * 5000, "1e-400", "true", "none", "None",
    "\n", "a\nb", "\t", "é", "三", "\U0001f600", "a" * 5000, "~nosuchuser", "~", "/", "/dev/null",
    "/dev/full", "/proc/self/mem", "..", "[", "*", "**", "{}", "[]", "()", "0x10", "1_000", "٣",
    "0..9", "9..0", "0..99999999999", "0,0", "1,,2", "32,64", "0.5", "2147483648", "4294967296",
    "--help", "=", "a=b", "$HOME", "%s", "{0}", "\\", "\udc80", "\x1b[31m", "NaN", "1" + "0" * 400)
VALUES = (
    None, True, False, 0, -1, 1, 2, 0.5, -0.0, 1e308, 2**31, 2**63, 10**400, 10**5000, "", "a",
    "0", "None", "\n", "\x00", "三", "a" * 5000, [], {}, [[]], [None], {"": None}, [1, 2],
    {"a": {"b": 1}}, float("nan"), float("inf"))


def cases(length: str) -> Iterator[Case]:
    """Yields batches of inputs: 2,400 in the long form, 72 in the short one."""
    for name, (number, function) in KINDS.items():
        if length == "short":
            yield batch(name, 0, 0, 12, function)
            continue
        for start in range(0, number, BATCH):
            yield batch(name, start // BATCH, start, min(start + BATCH, number), function)


def batch(
    name: str, number: int, first: int, last: int,
    function: Callable[[bool, Lab, random.Random, Path], None],
) -> Case:
    """Returns the inputs from `first` to before `last` of a kind, each drawn from its own seed."""
    def trials(lab: Lab, rng: random.Random) -> Iterator[Trial]:
        base = rng.getrandbits(32)
        for index in range(first, last):
            seed = f"{base}-{index}"
            yield lab.attempt(f"{name} {seed}", function, index % REAL == REAL - 1, lab,
                              random.Random(seed))

    return Case(f"random {name}", f"random {name}, batch {number}", trials)


def run(is_real: bool, lab: Lab, *arguments: str | Path) -> Done:
    """Runs a command line, in a process of its own or not."""
    return lab.launch(*arguments) if is_real else lab.enter(*arguments)


def any_text(rng: random.Random) -> str:
    """Returns a text that a parser may not expect."""
    if rng.random() < 0.8:
        return rng.choice(TEXTS)
    return "".join(chr(rng.choice((rng.randint(1, 127), rng.randint(1, 0xd7ff))))
                   for _ in range(rng.randint(1, 12)))


def fuzz_flags(is_real: bool, lab: Lab, rng: random.Random, scratch: Path) -> None:
    """Gives random flags to the modes that compute little."""
    finished = reference(lab, "everything")
    names = ("workdir", "set", "ablation", "executor", "cpus_per_run", "gpus_per_run", "seeds",
             "collect", "update", "data", "raw_data_dir", "data_dir", "checkpoint", "images",
             "format", "logs", "coordinator", "num_processes", "process_id", "experiment",
             "nosuchflag", "", "flagfile", "undefok")
    switches = ("list", "dry_run", "collect_only", "figure", "peers", "profile", "tensorboard")
    mode = rng.choice(("config", "config", "config", "eval", "predict", "compare", "export",
                       any_text(rng)))
    flags = [f"--mode={mode}"]
    if mode == "config":
        flags.append(f"--experiment={rng.choice(EXPERIMENTS)}")
    elif rng.random() < 0.7:
        flags.append(f"--workdir={finished if mode == 'compare' else scratch / 'run'}")
    for _ in range(rng.randint(0, 3)):
        kind = rng.random()
        if kind < 0.6:
            flags.append(f"--{rng.choice(names)}={any_text(rng)}")
        elif kind < 0.8:
            flags.append(f"--{rng.choice(('', 'no'))}{rng.choice(switches)}"
                         + rng.choice(("", "", f"={any_text(rng)}")))
        else:
            flags.append(rng.choice((any_text(rng), f"--{rng.choice(names)}", "-h=1", "-", "---")))
    rng.shuffle(flags)
    check_message(run(is_real, lab, *map(passable, flags)))


def passable(argument: str) -> str:
    """Returns an argument that the system lets a process have."""
    return argument.replace("\0", "")


def fuzz_overrides(is_real: bool, lab: Lab, rng: random.Random, scratch: Path) -> None:
    """Sets random fields to random values; what is accepted is JSON."""
    fields = fields_of(lab)
    flags = []
    for _ in range(rng.randint(1, 3)):
        name = rng.choice(fields)
        if rng.random() < 0.15:
            name = rng.choice((any_text(rng), name + ".x", name.partition(".")[0], name[:-1]))
        flags.append(f"--set={name}" + rng.choice(("=", "=", "=", "=", " = ", "", "=="))
                     + any_text(rng))
    done = run(is_real, lab, "--mode=config", f"--experiment={rng.choice(EXPERIMENTS)}",
               *map(passable, flags))
    check_message(done)
    if done.status == 0:
        check_json(done)


def check_json(done: Done) -> None:
    """Raises Fault unless a command has printed JSON."""
    try:
        json.loads(done.output)
    except ValueError as error:
        raise Fault(OTHER, f"no JSON: {error}: {done}") from error


@functools.cache
def fields_of(lab: Lab) -> list[str]:
    """Returns the dotted names of all fields of a config."""
    def walk(values: dict[str, Any], prefix: str) -> Iterator[str]:
        for name, value in values.items():
            if isinstance(value, dict):
                yield from walk(value, f"{prefix}{name}.")
            else:
                yield prefix + name

    config = json.loads((reference(lab, "everything") / "config.json").read_text())["config"]
    return list(walk(config, ""))


def mutate_bytes(content: bytes, rng: random.Random) -> bytes:
    """Returns bytes with some flipped, cut off, repeated, inserted or overwritten."""
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        place, size = rng.randrange(len(changed) + 1), rng.choice((1, 2, 4, 30))
        kind = rng.randrange(6)
        if kind == 0 and changed:
            changed[place % len(changed)] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del changed[place:]
        elif kind == 2:
            del changed[place:place + size]
        elif kind == 3:
            changed[place:place] = rng.randbytes(size)
        elif kind == 4:
            changed[place:place + size] = rng.choice((b"\xff", b"\x00")) * size
        else:
            changed[place:place] = changed[:place]
    return bytes(changed)


def mutate_json(text: str, rng: random.Random) -> bytes:
    """Returns JSON with a value, a name or the whole changed; or no JSON any more."""
    kind = rng.randrange(8)
    if kind == 0:
        return mutate_bytes(text.encode(), rng)
    if kind == 1:
        return rng.choice((
            b"", b"\n", b"null", b"3", b"[]", b'"a"', b"{}", b"[" * 10_000, b'{"a":' * 10_000,
            b"1" * 10_000, b"\xff\xfe", b"\x00" * 100, b'{"step": ' + b"1" * 5000 + b"}"))
    value = json.loads(text)
    holders = [(holder, name) for holder in nodes(value) for name in
               (holder if isinstance(holder, dict) else range(len(holder)))]
    holder, name = rng.choice(holders)
    if kind == 2:
        del holder[name]
    elif kind == 3 and isinstance(holder, dict):
        names = [value for value in VALUES if not has_long_integer(value)]
        holder[str(rng.choice(names))[:50]] = rng.choice(VALUES)
    else:
        holder[name] = rng.choice(VALUES)
    return written(value).encode(errors="surrogatepass")


def written(value: Any) -> str:
    """Returns JSON, in which integers may be of any length."""
    plain = json.dumps(value, default=str) if not has_long_integer(value) else None
    if plain is not None:
        return plain
    marked = json.dumps(replaced(value))
    return marked.replace('"<long>"', "1" + "0" * 5000)


def has_long_integer(value: Any) -> bool:
    """Returns whether an integer is within that Python refuses to write."""
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return (isinstance(value, int) and abs(value) > 10**4000) or any(map(has_long_integer, inside))


def replaced(value: Any) -> Any:
    """Returns a value with a mark in the place of its long integers."""
    if isinstance(value, dict):
        return {name: replaced(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [replaced(inner) for inner in value]
    return "<long>" if has_long_integer(value) else value


def nodes(value: Any) -> Iterator[Any]:
    """Yields the objects and lists that are not empty."""
    if isinstance(value, dict | list) and value:
        yield value
        for inner in value.values() if isinstance(value, dict) else value:
            yield from nodes(inner)


def fuzz_configs(is_real: bool, lab: Lab, rng: random.Random, scratch: Path) -> None:
    """Changes the config of a finished run, and shows it or another mode that reads it."""
    run_folder = link_copy(reference(lab, "everything"), scratch / "run")
    config = run_folder / "config.json"
    config.write_bytes(mutate_json(config.read_text(), rng))
    flags = rng.choice((["--mode=config"], ["--mode=config"], ["--mode=compare"], ["--mode=train"],
                        ["--mode=predict", f"--images={image(lab)}"]))
    check_message(run(is_real, lab, *flags, f"--workdir={run_folder}"))


def fuzz_run_files(is_real: bool, lab: Lab, rng: random.Random, scratch: Path) -> None:
    """Changes a file of JSON of a finished run, and uses a mode that reads it."""
    run_folder = link_copy(reference(lab, "everything"), scratch / "run")
    name = rng.choice(("result.json", "result.json", "metrics.jsonl", "eval.jsonl",
                       "diverged.json"))
    path = run_folder / name
    if name == "diverged.json":
        (run_folder / "result.json").unlink()
        path.write_bytes(mutate_json('{"step": 3, "told": "the loss is not finite"}', rng))
    elif name == "result.json":
        path.write_bytes(mutate_json(path.read_text(), rng))
    else:
        if name == "eval.jsonl":
            check_success(lab.enter("--mode=eval", f"--workdir={run_folder}"))
        lines = path.read_bytes().splitlines()
        place = rng.randrange(len(lines))
        lines[place] = mutate_json(lines[place].decode(), rng)
        path.write_bytes(b"\n".join(lines) + b"\n")
    modes = {
        "result.json": (["--mode=compare"], ["--mode=train"], ["--mode=report"]),
        "metrics.jsonl": (["--mode=compare"], ["--mode=report"], ["--mode=train"]),
        "eval.jsonl": (["--mode=eval", "--checkpoint=all"], ["--mode=compare"]),
        "diverged.json": (["--mode=train"], ["--mode=compare"], ["--mode=report"])}[name]
    flags = rng.choice(modes)
    if flags == ["--mode=train"]:
        flags = recipe(lab, "everything")
    check_message(run(is_real, lab, *flags, f"--workdir={run_folder}"))


def fuzz_raw_files(is_real: bool, lab: Lab, rng: random.Random, scratch: Path) -> None:
    """Changes a raw file: it is refused, or what a checksum covers is as before."""
    layout = rng.choice(("plain", "gz", "gz", "folder", "zip", "zip", "mnist"))
    folder = scratch / "raw"
    if layout in ("plain", "gz"):
        write_idx(lab, folder, layout)
        flags = [*recipe(lab, "dropout"), f"--set=data.folder={folder}"]
    elif layout == "folder":
        write_image_folder(folder, rng)
        flags = ["--experiment=dense_cnn", "--set=data.dataset=image_folder",
                 f"--set=data.folder={folder}", "--set=data.split=random",
                 *rng.choice(([], ["--set=data.image_size=28"]))]
    else:
        write_archive(folder, layout, rng)
        experiment = "mnist_cnn" if layout == "mnist" else "chinese_cnn"
        flags = [f"--experiment={experiment}", f"--raw_data_dir={folder}",
                 f"--data_dir={scratch / 'prepared'}"]
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    file = rng.choice(files)
    file.write_bytes(mutate_bytes(file.read_bytes(), rng))
    done = run(is_real, lab, "--mode=prepare", *flags)
    check_message(done)
    if layout in ("zip", "mnist") and done.status == 0:
        raise Fault(WRONG, f"took a part for the whole: {done}")
    if layout == "gz" and done.status == 0 and fingerprint(done) != undamaged(lab):
        raise Fault(WRONG, f"other images from a file that its checksum refuses: {done}")


def undamaged(lab: Lab) -> str:
    """Returns the fingerprint of the lab's data."""
    def prepare(folder: Path) -> None:
        done = lab.enter("--mode=prepare", *recipe(lab, "dropout"))
        check_success(done)
        (folder / "fingerprint").write_text(fingerprint(done))

    return (lab.once("fingerprint", prepare) / "fingerprint").read_text()


def fingerprint(done: Done) -> str:
    """Returns the fingerprint that --mode=prepare has printed."""
    return done.output.partition("fingerprint ")[2].split()[0]


def write_idx(lab: Lab, folder: Path, layout: str) -> None:
    """Copies the lab's idx files, compressed if asked for."""
    folder.mkdir()
    for path in lab.data().iterdir():
        content = path.read_bytes()
        if layout == "gz":
            (folder / f"{path.name}.gz").write_bytes(gzip.compress(content, 1, mtime=0))
        else:
            (folder / path.name).write_bytes(content)


def write_image_folder(folder: Path, rng: random.Random) -> None:
    """Writes twelve small images of two classes in a random format."""
    suffix = rng.choice(("png", "jpg", "gif", "bmp", "pgm", "tif", "webp"))
    for label in "ab":
        (folder / label).mkdir(parents=True)
        for number in range(6):
            picture = Image.frombytes("L", (28, 28), rng.randbytes(28 * 28))
            picture.save(folder / label / f"{number}.{suffix}")


def write_archive(folder: Path, layout: str, rng: random.Random) -> None:
    """Writes a few files of Chinese MNIST's or MNIST's archives, which alone are not the whole."""
    if layout == "mnist":
        (folder / "mnist").mkdir(parents=True)
        for part in ("train", "t10k"):
            for kind, header in (("images-idx3", struct.pack(">4I", 2051, 2, 28, 28)),
                                 ("labels-idx1", struct.pack(">2I", 2049, 2))):
                (folder / "mnist" / f"{part}-{kind}-ubyte.gz").write_bytes(
                    gzip.compress(header + bytes(2 * 784), mtime=0))
        return
    (folder / "chinese_mnist").mkdir(parents=True)
    method = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2,
                         zipfile.ZIP_LZMA))
    with zipfile.ZipFile(folder / "chinese_mnist" / "chinese_mnist.zip", "w", method) as archive:
        for number in range(1, 6):
            content = io.BytesIO()
            Image.frombytes("L", (64, 64), rng.randbytes(64 * 64)).save(content, "JPEG")
            name = f"input_{number if rng.random() < 0.9 else '9' * 5000}_1_1.jpg"
            archive.writestr(rng.choice(("", "data/", "../", "/")) + name, content.getvalue())


def fuzz_images(is_real: bool, lab: Lab, rng: random.Random, scratch: Path) -> None:
    """Changes an image, which is then read or named as one that cannot be."""
    mode = rng.choice(("L", "L", "RGB", "RGBA", "P", "1", "LA", "I;16", "F", "CMYK"))
    size = rng.choice(((1, 1), (1, 300), (28, 28), (60, 40), (200, 7)))
    formats = {"png": ("L", "RGB", "RGBA", "P", "1", "LA", "I;16"), "jpg": ("L", "RGB", "CMYK"),
               "gif": ("L", "P", "1"), "bmp": ("L", "RGB", "P", "1"), "tif": ("L", "RGB", "RGBA",
               "P", "1", "I;16", "F", "CMYK"), "webp": ("RGB", "RGBA"), "ppm": ("L", "RGB", "1")}
    suffix = rng.choice([name for name, modes in formats.items() if mode in modes])
    path = scratch / f"image.{suffix}"
    picture(mode, size, rng).save(path)
    if rng.random() < 0.8:
        path.write_bytes(mutate_bytes(path.read_bytes(), rng))
    done = run(is_real, lab, "--mode=predict", "--format=json", f"--images={path}",
               f"--workdir={reference(lab, 'everything')}")
    check_message(done, (0, 1, 2))
    if done.status == 2 and not path.exists():
        raise Fault(OTHER, f"refused: {done}")
    if done.status in (0, 1):
        check_json(done)
    if done.status == 1 and str(path) not in done.errors:
        raise Fault(OTHER, f"does not name the image: {done}")


def picture(mode: str, size: tuple[int, int], rng: random.Random) -> Image.Image:
    """Returns noise, a single gray, or noise on a blank ground."""
    kind = rng.randrange(3)
    base = Image.new("L", size, rng.choice((0, 255, 128)))
    if kind == 1:
        base = Image.frombytes("L", size, rng.randbytes(size[0] * size[1]))
    elif kind == 2 and min(size) > 8:
        base.paste(Image.frombytes("L", (6, 4), rng.randbytes(24)), (2, 2))
    return base.convert("I").convert("I;16") if mode == "I;16" else base.convert(mode)


KINDS = {
    "flags": (500, fuzz_flags), "overrides": (700, fuzz_overrides),
    "configs": (300, fuzz_configs), "run files": (300, fuzz_run_files),
    "raw files": (300, fuzz_raw_files), "images": (300, fuzz_images)}
