"""A font that has the characters of the class names; other names where there is none."""

import dataclasses
import itertools
import re
from collections.abc import Iterable, Iterator

from matplotlib import font_manager
from matplotlib.font_manager import FontProperties
from matplotlib.ft2font import FT2Font

# Families that have Chinese characters, the plain ones first; matched anywhere in the name.
CHINESE_FAMILIES = (
    "Noto Sans CJK", "Noto Sans SC", "Source Han Sans", "WenQuanYi", "PingFang", "Microsoft YaHei",
    "SimHei", "Heiti", "Hiragino Sans", "Droid Sans Fallback", "Noto Serif CJK", "Source Han Serif",
    "SimSun", "Songti", "AR PL", "Yu Gothic", "MS Gothic", "Malgun", "Arial Unicode", "Unifont")

LONGEST = 20  # characters of a name; what is beyond them is cut off

PINYIN = {
    "零": "líng", "〇": "líng", "一": "yī", "二": "èr", "三": "sān", "四": "sì", "五": "wǔ",
    "六": "liù", "七": "qī", "八": "bā", "九": "jiǔ", "十": "shí", "百": "bǎi", "千": "qiān",
    "万": "wàn", "亿": "yì"}


@dataclasses.dataclass(frozen=True)
class Labels:
    """Class names that can be drawn.

    Attributes:
      names: one for each class, all different if the classes' own names are.
      font: that has every character of them.
    """

    names: tuple[str, ...]
    font: FontProperties


def legible(class_names: Iterable[str], paths: Iterable[str] | None = None) -> Labels:
    """The class names with a font that has all their characters, so that no box is empty.

    Where no font has them, Chinese numerals become pinyin and other names `class 3`.

    Args:
      class_names: of a data set, in the order of its labels.
      paths: of the fonts to choose from, best first; None: those that matplotlib knows of.
    """
    names = tuple(_cut(name) for name in class_names)
    needed = set("".join(names)) | set("0123456789.% ")
    for path in _installed() if paths is None else paths:
        if _has(path, needed):
            return Labels(names, FontProperties(fname=path))
    plain = str(font_manager.findfont("DejaVu Sans"))  # matplotlib brings it along
    names = tuple(PINYIN.get(name, name) for name in names)
    return Labels(
        tuple(name if _has(plain, set(name)) else f"class {place}"
              for place, name in enumerate(names)),
        FontProperties(fname=plain))


def families() -> list[str]:
    """Matplotlib's own font, and if there is one, one that has Chinese characters."""
    return ["DejaVu Sans", *(entry.name for entry in itertools.islice(_chinese(_upright()), 1))]


def _cut(name: str) -> str:
    return name if len(name) <= LONGEST else name[:LONGEST - 1] + "…"


def _installed() -> Iterator[str]:
    """Matplotlib's own font, then those of Chinese families, then every other one."""
    yield str(font_manager.findfont("DejaVu Sans"))
    upright = _upright()
    yield from dict.fromkeys(entry.fname for entry in [*_chinese(upright), *upright])


def _upright() -> list[font_manager.FontEntry]:
    return [entry for entry in font_manager.fontManager.ttflist
            if entry.style == "normal" and entry.weight in (400, "normal", "regular")
            and not re.search("Emoji|Last ?Resort|Symbol", entry.name)]


def _chinese(entries: Iterable[font_manager.FontEntry]) -> Iterator[font_manager.FontEntry]:
    """Those of Chinese families, the plain ones first."""
    return (entry for family in CHINESE_FAMILIES for entry in entries
            if family.lower() in entry.name.lower())


def _has(path: str, characters: set[str]) -> bool:
    try:
        font = FT2Font(path)
        return all(font.get_char_index(ord(character)) for character in characters)
    except (OSError, RuntimeError):  # the list of fonts may be older than the fonts
        return False
