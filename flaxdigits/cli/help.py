"""The text of `--help`, and the message for a flag that does not exist."""

import dataclasses
import difflib
import re
import textwrap
from collections.abc import Mapping, Sequence

from absl import flags

from flaxdigits.overrides import names_ending_in

WIDTH = 100
INDENT = 28  # columns before the meaning of a flag
SHARED = 6  # a flag of more modes than this is listed before the modes


@dataclasses.dataclass(frozen=True)
class Flag:
    """What the help says about a flag, in addition to its meaning.

    Attributes:
      value: the placeholder of the value, such as `FILE`; empty for a bool, and for an enum if the
        help shows all its values.
      modes: the modes that take the flag; `ablation` is one of them.
    """

    value: str
    modes: tuple[str, ...]

    def is_shared(self) -> bool:
        """Returns whether most modes take the flag."""
        return len(self.modes) > SHARED

    def takers(self) -> str:
        """Returns the modes in words, such as `--mode=eval, predict or export`."""
        *others, last = [mode for mode in self.modes if mode != "ablation"] or [""]
        modes = f"--mode={', '.join(others)}{' or ' if others else ''}{last}" if last else ""
        return " and ".join(filter(None, [modes, "--ablation" * ("ablation" in self.modes)]))


def help_text(known: Mapping[str, Flag], modes: Mapping[str, str], mode: str | None) -> str:
    """Returns the text of `--help`.

    Args:
      known: the flags by name.
      modes: what each mode does.
      mode: the mode to describe, one of `modes` or `ablation`; None: all modes.
    """
    if mode is not None:
        how = "--ablation=NAME" if mode == "ablation" else f"--mode={mode}"
        taken = [name for name, flag in known.items() if mode in flag.modes and name != "mode"]
        return "\n".join([
            f"python launch.py {how} [--FLAG=VALUE ...]", "",
            modes.get(mode, "Runs or resumes a study of several configs."), "",
            *(line for name in taken for line in _lines(name, known[name]))])
    shared = [name for name, flag in known.items() if flag.is_shared()]
    text = [
        "python launch.py --experiment=NAME [--mode=MODE] [--set FIELD=VALUE ...]", "",
        "Flags of most modes; --help --mode=MODE lists all flags of one mode:",
        *(line for name in shared for line in _lines(name, known[name])), "",
        "Modes, each with the further flags that it takes:"]
    described: set[str] = set(shared)
    for each, meaning in {**modes, "ablation": ""}.items():
        further = [name for name, flag in known.items()
                   if each in flag.modes and name not in shared]
        if meaning:
            text.append(_row(f"--mode={each}", meaning))
        for name in further:
            if name not in described:
                text += _lines(name, known[name], 2 if name == each else 4)
        already_described = [f"--{name}" for name in further if name in described]
        if already_described:
            text.append(_row("", f"Also {', '.join(already_described)}."))
        described |= set(further)
    return "\n".join([*text, "", "--helpfull lists the flags of absl too."])


def _lines(name: str, flag: Flag, indent: int = 2) -> list[str]:
    """Returns the lines of a flag."""
    found = flags.FLAGS[name]
    if isinstance(found, flags.BooleanFlag):
        form = f"--[no]{name}" if found.default else f"--{name}"
    elif isinstance(found, flags.EnumFlag) and not flag.value:
        form = f"--{name}={'|'.join(found.parser.enum_values)}"
    else:
        form = f"--{name}={flag.value}"
    # absl adds the choices before the text, and a note after the text of a flag that can be
    # repeated; both are removed.
    meaning = re.sub(r"^<[^>]*>: |;\s+repeat this option.*", "", found.help, flags=re.DOTALL)
    return _row(form, meaning, indent).splitlines()


def _row(left: str, text: str, indent: int = 2) -> str:
    """Returns a line of two columns, whose second is wrapped."""
    left = " " * indent + left
    first, *rest = textwrap.wrap(text, WIDTH - INDENT)
    if len(left) >= INDENT:
        return "\n".join([left, *(" " * INDENT + line for line in (first, *rest))])
    return "\n".join([left.ljust(INDENT) + first, *(" " * INDENT + line for line in rest)])


def unknown_flag(argument: str, arguments: Sequence[str], known: Mapping[str, Flag]) -> str:
    """Returns the message for a flag that does not exist.

    If the config has a field of this name, the message contains the `--set` for the field.

    Args:
      argument: the flag as it was given, such as `--epochs=2`.
      arguments: the whole command line.
      known: the flags by name.
    """
    name, equals, value = argument.lstrip("-").partition("=")
    if not equals:
        after = arguments[arguments.index(argument) + 1:] if argument in arguments else []
        value = after[0] if after and not after[0].startswith("-") else "VALUE"
    fields = names_ending_in(name)
    if fields:
        return f"unknown flag --{name}: use " + " or ".join(
            f"--set {field}={value}" for field in fields)
    near = difflib.get_close_matches(name, known, n=2, cutoff=0.6)
    return f"unknown flag --{name}: " + (
        f"did you mean {' or '.join(f'--{other}' for other in near)}? " if near else "") + (
        "--help lists all flags, and --mode=config all fields for --set")
