"""The supervisor of one program: starts it confined, reads what it prints, bounds it, and kills all of its processes."""

import json
import os
import selectors
import signal
import sys
import time

from specexit_jax.sandbox import confine, namespaces, syscalls, watch

_LOOK_EVERY = 0.02  # seconds; more where a look takes long
_REASONS = {"tasks": "killed", "disk": "killed", "memory": "memory", "cpu": "timeout", "wall": "timeout"}
_TAIL = 4096  # bytes kept of the end of what was printed, to know what ended it


def serve(request: dict, channels: dict[int, int]) -> dict:
    """Runs one program to its end. channels: descriptors that it shall have beside the usual three, by their numbers there.

    Standard input is watched: its end, or anything that comes, ends the program. Answers {"unavailable": layer, "why": text}
    where a layer cannot be had, and then nothing was run.
    """
    os.mkdir(request["folder"], 0o700)
    try:
        return _serve(request, channels)
    except confine.Unavailable as error:
        return {"unavailable": error.layer, "why": str(error)}
    finally:
        watch.remove(request["folder"])


def _serve(request: dict, channels: dict[int, int]) -> dict:
    syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
    if "namespaces" in request["layers"]:
        try:
            namespaces.leave()
        except OSError as error:
            raise confine.Unavailable("namespaces", error) from error
    given = os.memfd_create("stdin")
    with open(given, "wb") as file:
        file.write(request["stdin"].encode(errors="surrogatepass"))
        file.flush()
        stdin = os.open(f"/proc/self/fd/{given}", os.O_RDONLY)
    (out, out_end), (err, err_end), (ready, ready_end), (status, status_end) = (os.pipe() for _ in range(4))
    handles = channels | {0: stdin, 1: out_end, 2: err_end, confine.READY: ready_end}
    child = os.fork()
    if not child:
        _become(request, handles, status_end, ready_end)
    for handle in (*handles.values(), status_end):
        os.close(handle)
    try:
        _until_started(ready)
        run = _Run(request, child, out, err)
        run.watch()
    finally:
        _kill(child)
    run.read_rest()
    if run.apart and (said := os.read(status, 16)):
        run.how = int(said)
    return run.answer()


def _become(request: dict, handles: dict[int, int], status: int, ready: int) -> None:
    layer, why = "", ""
    try:
        confine.enter(request, handles, status)
    except confine.Unavailable as error:
        layer, why = error.layer, str(error)
    except BaseException as error:
        why = f"{type(error).__name__}: {error}"
    for handle in (confine.READY, ready):  # before or after descriptors were moved
        try:
            os.write(handle, json.dumps([layer, why]).encode())
            break
        except OSError:
            continue
    os._exit(1)


def _until_started(ready: int) -> None:
    """Raises Unavailable, or RuntimeError, where the child did not come to its exec."""
    said = b""
    while part := os.read(ready, 4096):
        said += part
    os.close(ready)
    if said:
        layer, why = json.loads(said)
        raise confine.Unavailable(layer, OSError(why)) if layer else RuntimeError(why)


def _kill(child: int) -> None:
    """The whole group at once, which nobody can leave (no setsid, no setpgid); then waits until none is left."""
    try:
        os.killpg(child, signal.SIGKILL)
        os.kill(child, signal.SIGKILL)
    except ProcessLookupError:
        pass
    try:
        while True:
            os.waitpid(-1, 0)
    except ChildProcessError:
        pass


class _Run:
    """A started program: what it has printed, how long it may go on, why it was ended."""

    def __init__(self, request: dict, child: int, out: int, err: int):
        self.apart = "namespaces" in request["layers"]
        self.how = int(signal.SIGKILL)  # the program's wait status, until it has another
        self._child, self._folder, self._limits = child, request["folder"], request["limits"]
        self._printed = {out: bytearray(), err: bytearray()}
        self._tail = b""
        self._out, self._err, self._reason = out, err, None
        self._begun, self._seconds = time.monotonic(), 0.0

    def watch(self) -> None:
        """Until the program ends, or must; the asker's end of the pipe is watched too."""
        selector = selectors.DefaultSelector()
        for handle in (sys.stdin.fileno(), *self._printed):
            selector.register(handle, selectors.EVENT_READ)
        deadline, look, pause = self._begun + self._limits["wall"], self._begun, _LOOK_EVERY
        while not self._ended() and self._reason is None:
            now = time.monotonic()
            if now >= deadline:
                self._reason = "wall"
            elif now >= look:
                self._reason = self._excess()
                pause = max(_LOOK_EVERY, 10 * (time.monotonic() - now))
                look = time.monotonic() + pause
            for key, _ in selector.select(min(pause, 0.002 if len(selector.get_map()) == 1 else pause)):
                if key.fd not in self._printed:
                    self._reason = "abandoned"
                elif not self._read(key.fd):
                    selector.unregister(key.fd)
        self._seconds = time.monotonic() - self._begun
        selector.close()

    def _ended(self) -> bool:
        """Buries what others left to us; the child itself stays, so that its group's number is not given to another."""
        while (found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
            if found.si_pid == self._child:
                ended = found.si_code == os.CLD_EXITED
                self.how = found.si_status << 8 if ended else found.si_status
                return True
            os.waitpid(found.si_pid, 0)
        return False

    def _excess(self) -> str | None:
        found = watch.usage(self._child, self._child if self.apart else None)
        taken = {"tasks": found.tasks, "memory": found.memory, "cpu": found.cpu}
        if not self.apart:  # else its folder is in memory, of this size
            taken["disk"] = watch.disk(self._folder, found.ids)
        bounds = self._limits | {"tasks": self._limits["processes"]}
        return next((name for name, much in taken.items() if much > bounds[name]), None)

    def _read(self, handle: int) -> bytes:
        """Keeps the beginning of what was printed; the rest is read, so that nobody waits, and dropped.

        However much it is, it ends nothing: whoever prints for ever runs into the limits of time.
        """
        part = os.read(handle, 1 << 16)
        kept = self._printed[handle]
        if handle == self._err:
            self._tail = (self._tail + part)[-_TAIL:]
        kept += part[: self._limits["output"] - len(kept)]
        return part

    def read_rest(self) -> None:
        for handle in self._printed:
            while self._read(handle):
                pass

    def answer(self) -> dict:
        code = os.waitstatus_to_exitcode(self.how)
        out, err = (bytes(self._printed[handle]).decode(errors="replace") for handle in (self._out, self._err))
        if self._reason:
            status, code = _REASONS.get(self._reason, "killed"), -signal.SIGKILL
        elif code == 0:
            status = "passed"
        elif code == -signal.SIGXCPU:
            status = "timeout"
        elif code == -signal.SIGKILL:
            status = "killed"
        else:
            status = "memory" if b"MemoryError" in self._tail.rstrip().rpartition(b"\n")[2] else "failed"
        abandoned = self._reason == "abandoned"
        return {"status": status, "returncode": code, "stdout": out, "stderr": err, "seconds": self._seconds} | (
            {"abandoned": True} if abandoned else {}
        )
