"""Judges for grading processes of the tests. Answers say what shall happen."""

import os
import random
import signal
import sys
import time
import zlib


def judge(checker, task, answer, reference, own=None):
    """`crash` and `hang` always do so; `once FILE` crashes the first time; `sleep S`; else whether the texts are equal."""
    word, _, rest = answer.partition(" ")
    if word == "crash":
        os.kill(os.getpid(), signal.SIGKILL)
    if word == "hang":
        if rest:
            with open(rest, "a") as file:
                file.write(f"{os.getpid()}\n")
        time.sleep(600)
    if word == "once" and not os.path.exists(rest):
        open(rest, "w").close()
        os._exit(3)
    if word == "raise":
        raise ValueError("this reference is no test")
    if word == "print":
        print("words of a library")
    if word == "modules":
        from specexit_jax.data.grading.judge import load

        load()  # as processes that ask the real checkers do
        return "jax" not in sys.modules and "numpy" not in sys.modules
    if word == "pid":
        with open(rest, "a") as file:
            file.write(f"{os.getpid()}\n")
    if word == "sleep":
        time.sleep(float(rest))
        return True
    return answer == reference


def coin(*question):
    """A coin thrown by the question."""
    return zlib.crc32(repr(question).encode()) % 2 == 0


def late(*question):
    """The same after 0 to 5 ms, so that grades arrive in another order than they were asked for."""
    time.sleep(random.uniform(0, 0.005))
    return coin(*question)


def slow(*question):
    """The same after 50 ms."""
    time.sleep(0.05)
    return coin(*question)
