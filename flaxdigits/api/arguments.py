"""The types of arguments that several calls take."""

import os
from typing import Literal

PathLike = str | os.PathLike[str]
Source = Literal["auto", "real", "drawn"]
