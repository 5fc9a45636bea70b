"""Types of arguments that several functions of the API share."""

import os
from typing import Literal

PathLike = str | os.PathLike[str]
# `drawn` is the old name of `synthetic`.
SourceName = Literal["auto", "real", "synthetic", "drawn"]
