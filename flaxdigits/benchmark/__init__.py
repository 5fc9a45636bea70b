"""How fast training is: ours measured, and beside it the same in Keras and PyTorch."""
