"""Which answers are right: mathematics, choices, texts and programs."""
