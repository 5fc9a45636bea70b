"""The modes of `launch.py`: one small file each, from `Options` to a call of the library."""
