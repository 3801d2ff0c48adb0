"""Two programs that talk to each other, one of which gives a verdict. Each has a supervisor and a sandbox of its own.

They share no folder, processes, signals or limits; they are connected by two pipes only.
"""

import json
import os
import select
import sys
import time

from specexit_jax.sandbox import supervisor

# descriptors that a program sees: what it reads from, what it writes to, and where the judge tells its verdict
READING, WRITING, VERDICT = 3, 5, 6
_GRACE = 0.5  # seconds in which the program may end by itself once the judge has ended without a verdict
_MOST, _REACHED = 1 << 16, "reached "  # bytes of a verdict, and how it begins


def serve(program: dict, judge: dict) -> dict:
    """Both are as `supervisor.serve` takes them. The answer is that of the program, with what the judge printed, and "told": what
    stood in the verdict, None where there is none."""
    questions, answers, verdict = os.pipe(), os.pipe(), os.pipe()
    asked = _Half(program, {READING: questions[0], WRITING: answers[1]})
    asking = _Half(judge, {READING: answers[0], WRITING: questions[1], VERDICT: verdict[1]})
    for handle in (*questions, *answers, verdict[1]):
        os.close(handle)
    told = _await(asked, asking, verdict[0])
    found, other = asked.answer(), asking.answer()
    return next((answer for answer in (found, other) if "unavailable" in answer), None) or _together(found, other, told)


class _Half:
    """A supervisor in a process of its own, which ends when we let go of it, or end."""

    def __init__(self, request: dict, channels: dict[int, int]):
        life, self._life = os.pipe()
        self.said, said_end = os.pipe()
        self._text = b""
        self._process = os.fork()
        if not self._process:
            _become(request, channels, life, said_end)
        os.close(life)
        os.close(said_end)

    def let_go(self) -> None:
        if self._life is not None:
            os.close(self._life)
            self._life = None

    def read(self) -> bool:
        """Whether there may be more."""
        part = os.read(self.said, 1 << 16)
        self._text += part
        return bool(part)

    def answer(self) -> dict:
        os.waitpid(self._process, 0)
        if not self._text:
            raise RuntimeError("one of two supervisors left without an answer")
        return json.loads(self._text)


def _become(request: dict, channels: dict[int, int], life: int, said: int) -> None:
    try:
        kept = {0, 1, 2, life, said, *channels.values()}
        for handle in map(int, os.listdir("/proc/self/fd")):
            if handle not in kept:
                os.closerange(handle, handle + 1)
        os.dup2(life, 0)
        os.close(life)
        text = json.dumps(supervisor.serve(request, channels)).encode()
        while text:
            text = text[os.write(said, text) :]
        os._exit(0)
    except BaseException as error:
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
    finally:
        os._exit(1)


def _await(program: _Half, judge: _Half, verdict: int) -> str | None:
    """Waits until both have answered; returns the verdict. If the judge ends without one, the program is ended soon
    after. If the asking process is gone, both are ended."""
    talking = {program.said: program, judge.said: judge}
    asked, told = sys.stdin.fileno(), None
    poll, until = select.poll(), None
    for handle in (asked, *talking):
        poll.register(handle, select.POLLIN)
    while talking:
        ready = poll.poll(None if until is None else max(0, 1000 * (until - time.monotonic())))
        for handle, _ in ready:
            if handle == asked:
                poll.unregister(asked)
                program.let_go()
                judge.let_go()
            elif not talking[handle].read():
                poll.unregister(handle)
                if talking.pop(handle) is judge:
                    told = _verdict(verdict)
                    until = time.monotonic() + _GRACE if told is None else None
        if not ready:
            program.let_go()
            until = None
    return told


def _verdict(handle: int) -> str | None:
    """The verdict, None if the judge did not reach its end. Only the judge has the other end of this pipe, and it is
    closed by now."""
    text = os.read(handle, _MOST).decode(errors="replace")
    return text.removeprefix(_REACHED) if text.startswith(_REACHED) else None


def _together(program: dict, judge: dict, told: str | None) -> dict:
    """The joint result: passed only with a verdict, and if the program ended in order."""
    abandoned = program.pop("abandoned", False)
    judge.pop("abandoned", None)
    answer = dict(program)
    if told is None and (abandoned or program["status"] == "passed"):
        status = "failed" if judge["status"] == "passed" else judge["status"]
        answer |= {"status": status, "returncode": judge["returncode"] or 1}
    answer |= {name: program[name] + judge[name] for name in ("stdout", "stderr")}
    return answer | {"seconds": max(program["seconds"], judge["seconds"]), "told": told}
