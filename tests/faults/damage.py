"""Every file of a checkpoint truncated, emptied, deleted or with a bit flipped; then a command."""

import functools
import itertools
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from lab import WRONG, Case, Fault, Lab, Trial, check_message, check_success
from runs import (
    STEPS,
    check_same,
    evaluated,
    json_rows,
    link_copy,
    recipe,
    reference,
    without_clocks,
)
from safetensors.numpy import load_file

KIND = "damaged checkpoint"
DAMAGES = ("truncated", "emptied", "deleted", "bit flipped")
COMMANDS = ("resume", "eval", "best", "predict", "export")
SHORT = ("deleted", "resume"), ("bit flipped", "resume"), ("bit flipped", "eval")
STOP = 25  # the newest checkpoint of a paused run, of which four are kept before it


def cases(length: str) -> Iterator[Case]:
    """Yields a case for each damage and command; a short one damages three files, not all."""
    pairs = itertools.product(DAMAGES, COMMANDS)
    for damage, command in pairs if length == "long" else SHORT:
        yield Case(KIND, f"{damage}, then {command}",
                   functools.partial(try_files, damage, command, None if length == "long" else 3))


def paused(lab: Lab) -> Path:
    """Returns the folder of a run that is paused after several checkpoints."""
    def train(folder: Path) -> None:
        check_success(lab.launch(*recipe(lab, "everything"), f"--set=train.stop_after={STOP}",
                             f"--workdir={folder}"))

    return lab.once("paused", train)


def try_files(
    damage: str, command: str, number: int | None, lab: Lab, rng: random.Random
) -> Iterator[Trial]:
    """Damages the files of the newest checkpoint, one in each trial."""
    newest = STOP if command == "resume" else STEPS
    run = paused(lab) if command == "resume" else reference(lab, "everything")
    step = run / "checkpoints" / str(newest)
    files = sorted(path.relative_to(run) for path in step.rglob("*") if path.is_file())
    largest = max(files, key=lambda path: (run / path).stat().st_size)  # holds the arrays
    chosen = files if number is None else [largest, *rng.sample(files, number - 1)]
    for file in chosen:
        flips = 4 if damage == "bit flipped" and (run / file).stat().st_size > 1000 else 1
        for flip in range(flips if number is None else 1):
            yield lab.attempt(f"{file} {damage}, then {command} {flip}", damage_one, run, file,
                              damage, command, lab, rng)
    for folder in (step, step / "state") if damage == "deleted" and number is None else ():
        yield lab.attempt(f"{folder.relative_to(run)} {damage}, then {command}", damage_one, run,
                          folder.relative_to(run), damage, command, lab, rng)


def damage_one(
    source: Path, file: Path, damage: str, command: str, lab: Lab, rng: random.Random,
    scratch: Path,
) -> None:
    """Damages a file or folder in a copy of a run; the command then is right or refuses."""
    run = link_copy(source, scratch / "run")
    damage_file(run / file, damage, rng)
    if command == "resume":
        resume(lab, run)
    elif command in ("eval", "best"):
        evaluate(lab, run, "last" if command == "eval" else "best")
    elif command == "predict":
        predict(lab, run)
    else:
        export(lab, run)


def damage_file(path: Path, damage: str, rng: random.Random) -> None:
    """Damages one file, or deletes a folder."""
    if path.is_dir():
        for inner in sorted(path.rglob("*"), reverse=True):
            inner.rmdir() if inner.is_dir() else inner.unlink()
        path.rmdir()
        return
    content = bytearray(path.read_bytes())
    if damage == "deleted":
        path.unlink()
    elif damage == "bit flipped" and content:
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(content)
    else:
        path.write_bytes(content[:len(content) // 2] if damage == "truncated" else b"")


def resume(lab: Lab, run: Path) -> None:
    """Goes on with a paused run: to the uninterrupted result, or to a refusal."""
    done = lab.enter(*recipe(lab, "everything"), f"--workdir={run}")
    check_message(done)
    if (run / "diverged.json").exists():
        raise Fault(WRONG, f"damage was taken for divergence: {done}")
    if done.status == 0:
        check_same(run, reference(lab, "everything"))


def evaluate(lab: Lab, run: Path, which: str) -> None:
    """Scores a checkpoint: as the undamaged one, with its step, or not at all."""
    wanted = evaluated(lab, reference(lab, "everything"))
    done = lab.enter("--mode=eval", f"--checkpoint={which}", f"--workdir={run}")
    check_message(done)
    for row in json_rows(run / "eval.jsonl"):
        if without_clocks(row) != without_clocks(wanted[row["step"]]):
            raise Fault(WRONG, f"another score of step {row['step']}: {done}")
        intact = str(STEPS)
        if which == "last" and row["step"] != STEPS and not (
                intact in done.errors or intact in done.output):
            raise Fault(WRONG, f"scored step {row['step']} as the last without a note: {done}")


def predict(lab: Lab, run: Path) -> None:
    """Reads an image: as the undamaged network, or not at all."""
    flags = "--mode=predict", "--format=json", f"--images={image(lab)}"
    expected = lab.once("predicted", lambda folder: (folder / "readings.json").write_text(
        output_of(lab.enter(*flags, f"--workdir={reference(lab, 'everything')}"))))
    done = lab.enter(*flags, f"--workdir={run}")
    check_message(done)
    is_older = "note: " in done.errors or "warning" in done.errors
    if done.status == 0 and not is_older and (
            done.output != (expected / "readings.json").read_text()):
        raise Fault(WRONG, f"another reading: {done}")


def export(lab: Lab, run: Path) -> None:
    """Exports weights: those of the undamaged network, or none."""
    def export_reference(folder: Path) -> None:
        copy = link_copy(reference(lab, "everything"), folder / "run")
        check_success(lab.enter("--mode=export", f"--workdir={copy}"))

    expected = lab.once("exported", export_reference) / "run" / "export" / "weights.safetensors"
    done = lab.enter("--mode=export", f"--workdir={run}")
    check_message(done)
    weights = run / "export" / "weights.safetensors"
    is_older = "note: " in done.errors and str(STEPS) in done.errors
    if done.status == 0 and not is_older and not same_arrays(weights, expected):
        raise Fault(WRONG, f"other weights: {done}")


def same_arrays(ours: Path, expected: Path) -> bool:
    """Returns whether two safetensors files hold the same arrays; their metadata has no order."""
    arrays, wanted = load_file(ours), load_file(expected)
    return arrays.keys() == wanted.keys() and all(
        np.array_equal(arrays[name], wanted[name]) for name in wanted)


def output_of(done: object) -> str:
    """Returns what a command that did well has printed."""
    check_success(done)
    return done.output


def image(lab: Lab) -> Path:
    """Returns an image file with clear ink."""
    from PIL import Image, ImageDraw

    def draw(folder: Path) -> None:
        picture = Image.new("L", (60, 60), 255)
        ImageDraw.Draw(picture).line([(15, 10), (45, 50)], fill=0, width=6)
        picture.save(folder / "stroke.png")

    return lab.once("image", draw) / "stroke.png"


