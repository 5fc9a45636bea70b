"""The types of arguments that several calls take."""

import os
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:  # which imports tensorflow-datasets, and takes half a second
    from flaxdigits.data.arrays import DataArrays

PathLike = str | os.PathLike[str]
SourceName = Literal["auto", "real", "drawn"]
Source: TypeAlias = "SourceName | DataArrays"  # arrays are those of data.dataset=arrays
