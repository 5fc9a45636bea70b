"""Evaluation of trained networks: logits, metrics, predictions and export."""
