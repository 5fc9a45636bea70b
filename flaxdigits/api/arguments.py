"""Types of arguments that several functions of the API share."""

import os
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:  # which imports tensorflow-datasets, and takes half a second
    from flaxdigits.data.arrays import DataArrays

PathLike = str | os.PathLike[str]
# `drawn` is the old name of `synthetic`.
SourceName = Literal["auto", "real", "synthetic", "drawn"]
Source: TypeAlias = "SourceName | DataArrays"  # arrays with data.dataset=arrays
