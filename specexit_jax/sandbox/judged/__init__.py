"""A program and its tests in two processes, of which the judge does not trust the program. These modules run in both.

The judge's process holds the tests and what they expect; the program's own one holds the program. Calls go from one to the
other as lines of JSON (`calls`), values as data (`values`). The judge unpickles nothing, runs nothing and compares nothing that
came from the program but built-in types, which it makes itself.
"""
