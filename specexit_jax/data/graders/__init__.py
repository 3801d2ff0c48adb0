"""Graders of answers: mathematics, choices, texts and programs."""
