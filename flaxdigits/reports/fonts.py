"""Finds a font that has the characters of the class names, or replaces the names."""

import dataclasses
import itertools
import re
from collections.abc import Iterable, Iterator

from matplotlib import font_manager
from matplotlib.font_manager import FontProperties
from matplotlib.ft2font import FT2Font

# Substrings of the names of font families with Chinese characters, sans-serif families first.
CHINESE_FAMILIES = (
    "Noto Sans CJK", "Noto Sans SC", "Source Han Sans", "WenQuanYi", "PingFang", "Microsoft YaHei",
    "SimHei", "Heiti", "Hiragino Sans", "Droid Sans Fallback", "Noto Serif CJK", "Source Han Serif",
    "SimSun", "Songti", "AR PL", "Yu Gothic", "MS Gothic", "Malgun", "Arial Unicode", "Unifont")

MAX_NAME_LENGTH = 20  # characters; longer class names are truncated

PINYIN = {
    "零": "líng", "〇": "líng", "一": "yī", "二": "èr", "三": "sān", "四": "sì", "五": "wǔ",
    "六": "liù", "七": "qī", "八": "bā", "九": "jiǔ", "十": "shí", "百": "bǎi", "千": "qiān",
    "万": "wàn", "亿": "yì"}


@dataclasses.dataclass(frozen=True)
class Labels:
    """Class names that can be drawn.

    Attributes:
      names: a name for each class; they are unique if the original names are.
      font: a font that has all characters of the names.
    """

    names: tuple[str, ...]
    font: FontProperties


def drawable_labels(class_names: Iterable[str], paths: Iterable[str] | None = None) -> Labels:
    """Returns the class names with a font that has all their characters.

    If no font has them, Chinese numerals are replaced by pinyin and other names by `class 3` etc.

    Args:
      class_names: the names of the classes in the order of the labels.
      paths: the paths of the fonts to choose from, the best first; None: all fonts that matplotlib
        finds.
    """
    names = tuple(_truncate(name) for name in class_names)
    needed = set("".join(names)) | set("0123456789.% ")
    for path in _font_paths() if paths is None else paths:
        if _has_glyphs(path, needed):
            return Labels(names, FontProperties(fname=path))
    plain = str(font_manager.findfont("DejaVu Sans"))  # part of matplotlib
    names = tuple(PINYIN.get(name, name) for name in names)
    return Labels(
        tuple(name if _has_glyphs(plain, set(name)) else f"class {label}"
              for label, name in enumerate(names)),
        FontProperties(fname=plain))


def families() -> list[str]:
    """Returns the default font family and, if there is one, a family with Chinese characters."""
    chinese = itertools.islice(_chinese_fonts(_regular_fonts()), 1)
    return ["DejaVu Sans", *(entry.name for entry in chinese)]


def _truncate(name: str) -> str:
    return name if len(name) <= MAX_NAME_LENGTH else name[:MAX_NAME_LENGTH - 1] + "…"


def _font_paths() -> Iterator[str]:
    """Yields the paths of the default font, of fonts with Chinese characters, and of the others."""
    yield str(font_manager.findfont("DejaVu Sans"))
    regular = _regular_fonts()
    yield from dict.fromkeys(entry.fname for entry in [*_chinese_fonts(regular), *regular])


def _regular_fonts() -> list[font_manager.FontEntry]:
    return [entry for entry in font_manager.fontManager.ttflist
            if entry.style == "normal" and entry.weight in (400, "normal", "regular")
            and not re.search("Emoji|Last ?Resort|Symbol", entry.name)]


def _chinese_fonts(entries: Iterable[font_manager.FontEntry]) -> Iterator[font_manager.FontEntry]:
    """Yields the fonts of families with Chinese characters, in the order of `CHINESE_FAMILIES`."""
    return (entry for family in CHINESE_FAMILIES for entry in entries
            if family.lower() in entry.name.lower())


def _has_glyphs(path: str, characters: set[str]) -> bool:
    try:
        font = FT2Font(path)
        return all(font.get_char_index(ord(character)) for character in characters)
    except (OSError, RuntimeError):  # the font may have been removed since the list was cached
        return False
