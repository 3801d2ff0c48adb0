"""The stages of an evaluation, from problems to report; each can be run alone."""
