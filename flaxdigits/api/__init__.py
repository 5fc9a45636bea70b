"""What `import flaxdigits` offers: a function for each mode of `launch.py`, without its flags."""
