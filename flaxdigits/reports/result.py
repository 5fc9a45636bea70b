"""The figures of a run, or of several seeds, in lines that a person reads."""

from typing import Any

from rich.console import Console

SPLITS = ("train", "validation", "test")


def print_result(console: Console, result: dict[str, Any]) -> None:
    """Prints the figures of `result.json`, a line for every split."""
    for split in SPLITS:
        if result[f"{split}_examples"] is not None:
            console.print(f"{split:10}  {_figures(result, split)}")
    console.print(
        f"{result['parameters']:,} parameters, {result['steps']} steps in "
        f"{result['seconds_training']:.1f} s ({result['steps_per_second']:.1f} steps/s), compiling "
        f"{result['seconds_compiling']:.1f} s, evaluating {result['seconds_evaluating']:.1f} s, "
        f"on {result['device']}")


def print_summary(console: Console, summary: dict[str, Any]) -> None:
    """Prints the figures of `summary.json`, a line for every split, and who diverged."""
    for split in SPLITS:
        accuracy = summary["figures"].get(f"{split}_accuracy")
        if accuracy is not None:
            console.print(f"{split:10}  accuracy {mean_and_sd(accuracy)}, "
                          f"{interval(accuracy)}, {accuracy['n']} seeds")
    if summary["diverged"]:
        console.print(f"diverged: seed {', '.join(summary['diverged'])}")


def mean_and_sd(accuracy: dict[str, Any]) -> str:
    """Of an estimated fraction, in per cent."""
    sd = "" if accuracy["sd"] is None else f" ± {100 * accuracy['sd']:.2f}"
    return f"{100 * accuracy['mean']:.2f}{sd} %"


def interval(accuracy: dict[str, Any]) -> str:
    """Of an estimated fraction, in per cent, of which there are none below 0 and above 100."""
    if accuracy["low"] is None:
        return "no interval"
    low, high = max(0, accuracy["low"]), min(1, accuracy["high"])
    return f"95 % interval {100 * low:.2f} to {100 * high:.2f} %"


def evaluation_line(row: dict[str, Any]) -> str:
    """A line for one checkpoint."""
    scored = [split for split in SPLITS if row[f"{split}_examples"] is not None]
    return f"step {row['step']}  " + "  ".join(f"{s} {_figures(row, s)}" for s in scored)


def print_synthetic_data_notice(console: Console, source: str) -> None:
    """Says so, loudly, if the data are not real."""
    if source == "drawn":
        console.print("DRAWN DATA: these characters were drawn by flaxdigits; the figures are not "
                      "about the real data set (--data=real refuses this)", style="bold yellow")


def _figures(values: dict[str, Any], split: str) -> str:
    shown = ("accuracy", "loss", "errors", "examples", "accuracy_running")
    others = {name.removeprefix(f"{split}_"): value for name, value in values.items()
              if name.startswith(f"{split}_") and name.removeprefix(f"{split}_") not in shown}
    return (f"accuracy {values[f'{split}_accuracy']:.4%}  loss {values[f'{split}_loss']:.4f}  "
            f"errors {values[f'{split}_errors']} of {values[f'{split}_examples']}"
            + "".join(f"  {name} {value:.4f}" for name, value in others.items()))
