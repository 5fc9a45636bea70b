"""Benchmarks of training, optionally compared with the same networks in Keras and PyTorch."""
