"""The modes of `launch.py`: each module converts `Options` to a call of `flaxdigits.api`."""
