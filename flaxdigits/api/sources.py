"""The type of the argument `data`; apart from `arguments`, since it imports the data package."""

from flaxdigits.api.arguments import SourceName
from flaxdigits.data.arrays import DataArrays

Source = SourceName | DataArrays  # arrays only with `data.dataset=arrays`
