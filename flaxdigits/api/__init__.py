"""The Python API of `import flaxdigits`: a function for each mode of `launch.py`."""
