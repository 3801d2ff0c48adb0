"""The start of the child: applies every layer, then executes Python on the program."""

import contextlib
import ctypes
import os
import resource
import signal
import struct
import sys

from specexit_jax.sandbox import landlock, namespaces, seccomp, syscalls

READY = 4  # descriptor that says what went wrong, and is closed by exec
DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
_CAPABILITIES_3 = 0x20080522


class Unavailable(OSError):
    """A layer is not available here; `layer` names it."""

    def __init__(self, layer: str, error: OSError):
        super().__init__(f"{layer}: {error}")
        self.layer = layer


def enter(request: dict, handles: dict[int, int], status: int) -> None:
    """Never returns: this process becomes the program. In new namespaces the first process starts a second one, which
    becomes the program.

    request: as supervisor.py reads it. handles: descriptors by the number that the program shall see them under.
    status: where the first process of new namespaces writes how the program ended.
    """
    _end_with(os.getppid())
    folder, limits = request["folder"], request["limits"]
    os.setsid()
    if "namespaces" in request["layers"]:
        try:
            namespaces.own_root(request["readable"], request["hidden"], DEVICES, folder, limits["disk"])
        except OSError as error:
            raise Unavailable("namespaces", error) from error
        if child := os.fork():
            _look_after(child, status)
        _end_with(1)
    os.chdir(folder)
    _take_only(handles)
    for name, text in request["files"].items():
        with open(name, "w", encoding="utf-8", errors="surrogatepass", newline="") as file:
            file.write(text)
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    if "landlock" in request["layers"]:
        try:
            landlock.restrict(request["readable"], request["hidden"], DEVICES, folder)
        except OSError as error:
            raise Unavailable("landlock", error) from error
    _limit(limits, alone="namespaces" in request["layers"])
    _drop_capabilities()
    # Landlock's or the namespace's: then there is nobody else to signal
    signals = "namespaces" in request["layers"] or ("landlock" in request["layers"] and landlock.confines_signals())
    try:
        seccomp.restrict(signals)
    except OSError as error:
        raise Unavailable("seccomp", error) from error
    if request["anew"]:
        os.execve(request["python"], [request["python"], *request["arguments"]], request["environment"])
    _run_here(request["arguments"], request["environment"])


def _run_here(arguments: list[str], environment: dict[str, str]) -> None:
    """Runs the program in this interpreter, without the time that a new one takes: for programs from which nothing must
    be hidden."""
    os.close(READY)
    os.environ.clear()
    os.environ.update(environment)
    at = arguments.index("-c")
    sys.argv[:], sys.path[:] = (
        ["-c", *arguments[at + 2 :]],
        [path for path in sys.path if path.startswith(sys.base_prefix)],
    )
    code = 1
    try:
        exec(compile(arguments[at + 1], "<string>", "exec"), {"__name__": "__main__"})
        code = 0
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        os._exit(code)


def _end_with(parent: int) -> None:
    """Has this process killed when its parent ends."""
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() not in (parent, 0):  # 0: it lies outside of our namespace
        os._exit(1)


def _look_after(child: int, status: int) -> None:
    """The first process of a namespace reaps the others; when it exits, the kernel kills those that are left."""
    os.dup2(status, 3)
    os.closerange(0, 3)
    os.closerange(4, os.sysconf("SC_OPEN_MAX"))
    while True:
        buried, how = os.wait()
        if buried == child:
            os.write(3, str(how).encode())
            os._exit(0)


def _take_only(handles: dict[int, int]) -> None:
    """Keeps the given descriptors and closes all others; READY is closed by exec."""
    last = max(handles)
    above = {wanted: os.dup(given) for wanted, given in handles.items()}
    while any(given <= last for given in above.values()):
        above = {wanted: os.dup(given) for wanted, given in above.items()}
    for wanted, given in above.items():
        os.dup2(given, wanted, inheritable=wanted != READY)
    for number in range(last):
        if number not in handles:
            os.closerange(number, number + 1)
    os.closerange(last + 1, os.sysconf("SC_OPEN_MAX"))


def _limit(limits: dict, alone: bool) -> None:
    """alone: the user's processes are counted in this run's namespace (for the real root nobody counts them)."""
    bounds = {
        resource.RLIMIT_AS: (limits["memory"],) * 2,
        resource.RLIMIT_CPU: (limits["cpu"], limits["cpu"] + 1),
        resource.RLIMIT_FSIZE: (limits["disk"],) * 2,
        resource.RLIMIT_NOFILE: (limits["open_files"],) * 2,
        resource.RLIMIT_CORE: (0, 0),
        resource.RLIMIT_MEMLOCK: (0, 0),
        resource.RLIMIT_MSGQUEUE: (0, 0),
    }
    if alone:
        bounds[resource.RLIMIT_NPROC] = (limits["processes"] + 2,) * 2  # the supervisor and the first process
    for kind, (soft, hard) in bounds.items():
        most = resource.getrlimit(kind)[1]
        if most != resource.RLIM_INFINITY:
            soft, hard = min(soft, most), min(hard, most)
        resource.setrlimit(kind, (soft, hard))


def _drop_capabilities() -> None:
    for number in range(64):
        try:
            syscalls.prctl(syscalls.PR_CAPBSET_DROP, number)
        except OSError:  # not ours to drop, or the last one was before
            break
    header = ctypes.create_string_buffer(struct.pack("=Ii", _CAPABILITIES_3, 0))
    syscalls.call("capset", header, ctypes.create_string_buffer(24))
