"""Grades of answers that arrive later: dear checkers run in processes of their own, so that decoding goes on."""
