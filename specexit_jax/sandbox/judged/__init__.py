"""A program and its tests in two processes that trust each other in one direction: what runs there, beside the program itself.

The judge's process holds the tests and what they expect; the program's own one holds the program. Calls go from one to the
other as lines of JSON (`calls`), values as data (`values`). The judge unpickles nothing, runs nothing and compares nothing that
came from the program but built-in types, which it makes itself.
"""
