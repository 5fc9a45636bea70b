"""The pages of the documentation: README.md and docs/, their blocks of code and their commands."""

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
         for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md",
                      *sorted((ROOT / "docs").rglob("*.md"))]}


def blocks_of(page: str) -> list[tuple[str, str]]:
    """Returns the language and the text of each block of code."""
    return re.findall(r"^```([^\n]*)\n(.*?)^```$", PAGES[page], re.MULTILINE | re.DOTALL)


def python_of(page: str) -> list[str]:
    """Returns the blocks of Python."""
    return [text for language, text in blocks_of(page) if language == "python"]


def commands_of(page: str) -> list[str]:
    """Returns the lines of the blocks without a language, and the commands within paragraphs."""
    lines = [line for language, text in blocks_of(page) if not language
             for line in text.replace("\\\n", " ").splitlines()]
    prose = re.sub(r"^```.*?^```$", "", PAGES[page], flags=re.MULTILINE | re.DOTALL)
    return lines + [" ".join(command.split())
                    for command in re.findall(r"`(python launch\.py [^`]+)`", prose)]


def launches() -> Iterator[tuple[str, str]]:
    """Yields the page and the arguments of each command of flaxdigits, without redirection."""
    for page in PAGES:
        for command in commands_of(page):
            if command.startswith("python launch.py "):
                yield page, command.removeprefix("python launch.py ").partition(" > ")[0]


def files_of(page: str, function: str) -> dict[str, str]:
    """Returns the blocks that define a function, as files by name.

    The name is the first word of the block's docstring.
    """
    blocks = [text for text in python_of(page) if f"\ndef {function}(" in text]
    return {f"{text[3:].split(':')[0]}.py": text for text in blocks}


def scripts_of(page: str) -> list[str]:
    """Returns the blocks that are neither experiments nor studies nor parts of one."""
    return [text for text in python_of(page)
            if not re.search(r"^def get_(config|study)\(", text, re.MULTILINE)]
