"""Evaluation: logits, and what they are worth."""
