"""Attempts of programs to escape from the sandbox, and the targets that they try to reach.

The same attempts are made without a sandbox, where they must succeed. One that never succeeds would prove nothing.
"""

import contextlib
import os
import select
import socket
import subprocess
import sys
import threading
import uuid
from pathlib import Path

SECRET = "the-secret-of-the-house"

_VICTIM = f"""
import ctypes, time
ctypes.CDLL(None).prctl(0x59616D61, ctypes.c_ulong(-1), 0, 0, 0)  # where only parents may trace, anybody may trace this one
held = ctypes.create_string_buffer(b"{SECRET}")
print(ctypes.addressof(held), flush=True)
time.sleep(600)
"""

# {names} are those of `Host.names`
ATTEMPTS = {
    "tcp": "import socket; socket.create_connection(('127.0.0.1', {tcp}), 2).sendall(b'x')",
    "udp": "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'dns?', ('127.0.0.1', {udp}))",
    "udp6": "import socket; socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).bind(('::', 0))",
    "listen": "import socket; socket.create_server(('127.0.0.1', 0))",
    "netlink": "import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)",
    "abstract_socket": "import socket; socket.socket(socket.AF_UNIX).connect('\\0{abstract}')",
    "socket_pair": "import socket; socket.socketpair(type=socket.SOCK_DGRAM)[0].sendto(b'x', '\\0{datagrams}')",
    "secret": "assert '{secret}' in open('{home}/.token').read()",
    "secret_at_home": "assert '{secret}' in open('{real_home}').read()",
    "list_home": "import os; assert '.token' in os.listdir('{home}')",
    "environment": "import os; assert os.environ['SPECEXIT_TEST_SECRET'] == '{secret}'",
    "environment_of_another": "assert b'{secret}' in open('/proc/{victim}/environ', 'rb').read()",
    "memory_of_another": "f = open('/proc/{victim}/mem', 'rb', 0); f.seek({address}); assert f.read(23) == b'{secret}'",
    "write_beside": "open('{outside}/{own}', 'w').write('x')",
    "write_home": "open('{home}/{own}', 'w').write('x')",
    "write_real_home": "open('{real_home}.{own}', 'w').write('x')",
    "write_shared_memory": "open('/dev/shm/{own}', 'w').write('x')",
    "shared_memory": "from multiprocessing import shared_memory as s; s.SharedMemory('{own}', create=True, size=9).close()",
    "write_tmp": "open('/tmp/{own}', 'w').write('x')",
    "append": "open('{home}/.token', 'a').write('x')",
    "truncate": "import os; os.truncate('{home}/.victim', 0)",
    "remove": "import os; os.remove('{home}/.victim')",
    "chmod": "import os; os.chmod('{home}/.token', 0o644)",
    "touch": "import os; os.utime('{home}/.token')",
    "symlink": "import os; os.symlink('{home}/.token', 'link'); assert '{secret}' in open('link').read()",
    "symlinked_folder": "import os; os.symlink('{outside}', 'door'); open('door/{own}', 'w').write('x')",
    "hard_link": "import os; os.link('{home}/.token', '{beside}/{own}'); assert '{secret}' in open('{beside}/{own}').read()",
    "move_in": "import os; os.rename('{home}/.moved', '{beside}/{own}')",
    "dots": "assert '{secret}' in open('../' * 40 + '{home}/.token').read()",
    "kill": "import os, signal; os.kill({target}, signal.SIGKILL)",
    "limits_of_another": "import resource as r; r.prlimit({victim}, r.RLIMIT_CORE, (0, r.prlimit({victim}, r.RLIMIT_CORE)[1]))",
    "priority_of_another": "import os; os.setpriority(os.PRIO_PROCESS, {victim}, 3)",
    "trace": "import ctypes; assert ctypes.CDLL(None).ptrace(0x4206, {victim}, 0, 0) == 0",
    "read_memory": """
import ctypes
mine = ctypes.create_string_buffer(23)
class Vector(ctypes.Structure): _fields_ = [('base', ctypes.c_void_p), ('length', ctypes.c_size_t)]
to, there = Vector(ctypes.addressof(mine), 23), Vector({address}, 23)
assert ctypes.CDLL(None).process_vm_readv({victim}, ctypes.byref(to), 1, ctypes.byref(there), 1, 0) == 23
assert mine.raw == b'{secret}'""",
    "raise_limits": """
import resource as r
for kind in (r.RLIMIT_AS, r.RLIMIT_CPU, r.RLIMIT_FSIZE):
    r.setrlimit(kind, (r.RLIM_INFINITY, r.RLIM_INFINITY))""",
    "inherited_files": """
import os
found = b''
for handle in range(3, 256):
    try: found += os.pread(handle, 100, 0)
    except OSError: pass
assert b'{secret}' in found""",
    "shell": "import subprocess; assert subprocess.run(['/bin/sh', '-c', 'echo x'], capture_output=True).stdout == b'x\\n'",
    "own_program": """
import os, subprocess, sys
with open(os.open('run', os.O_CREAT | os.O_WRONLY, 0o755), 'w') as f: f.write('#!' + sys.executable + '\\nprint(1)')
assert subprocess.run(['./run'], capture_output=True).stdout == b'1\\n'""",
    "new_session": "import os; os.setsid()",
    "new_group": "import os; os.setpgid(0, 0)",
    "memory_file": "import os; os.memfd_create('x')",
    "shared_segment": "import ctypes; assert ctypes.CDLL(None).shmget(0, 4096, 0o1600) >= 0",
}  # fmt: skip


_EACH = """
import json, os
found = {{}}
for name, text in {attempts!r}.items():
    ours, theirs = os.pipe()
    if os.fork() == 0:
        try:
            exec(text, {{}})
            said = "ESCAPED"
        except BaseException as error:
            said = type(error).__name__ + ": " + str(error)
        os.write(theirs, said.encode())
        os._exit(0)
    os.close(theirs)
    found[name] = os.read(ours, 4096).decode()
    os.close(ours)
    os.wait()
print(json.dumps(found))
"""


class Host:
    """The targets of the attempts: servers, secrets, another process of the same user, writable folders."""

    def __init__(self, folder: Path):
        self.home, self.outside, self.beside = folder / "home", folder / "outside", folder / "beside"
        for made in (self.home, self.outside, self.beside):
            made.mkdir()
        (self.home / ".token").write_text(SECRET)
        self.real_home = Path.home() / f".specexit-sandbox-test-{uuid.uuid4().hex}"
        with contextlib.suppress(OSError):
            self.real_home.write_text(SECRET)
        self.abstract, self.datagram_name = (f"specexit-{uuid.uuid4().hex}" for _ in range(2))
        self._servers = [socket.create_server(("127.0.0.1", 0)), socket.socket(socket.AF_UNIX)]
        self._datagrams = [socket.socket(family, socket.SOCK_DGRAM) for family in (socket.AF_INET, socket.AF_UNIX)]
        self._servers[1].bind(f"\0{self.abstract}")
        self._servers[1].listen(64)
        self._datagrams[0].bind(("127.0.0.1", 0))
        self._datagrams[1].bind(f"\0{self.datagram_name}")
        environment = os.environ | {"VICTIM": SECRET}
        self.victim = self._another(environment)
        self.address = int(self.victim.stdout.readline())
        self.inherited = os.open(self.home / ".token", os.O_RDONLY)
        os.set_inheritable(self.inherited, True)

    @staticmethod
    def _another(environment: dict[str, str]) -> subprocess.Popen:
        return subprocess.Popen([sys.executable, "-c", _VICTIM], stdout=subprocess.PIPE, env=environment)

    def program(self, target: int | None = None) -> str:
        """Makes every attempt in a process of its own, and prints a line of JSON with each result, "ESCAPED" or an error.

        target: the process to kill, default the victim. Targets that were used up are made again.
        """
        for file, text in ((".victim", "x"), (".moved", "x"), (".token", SECRET)):
            (self.home / file).write_text(text)
        attempts = {
            name: text.format(
                tcp=self._servers[0].getsockname()[1], udp=self._datagrams[0].getsockname()[1], secret=SECRET,
                abstract=self.abstract, datagrams=self.datagram_name, home=self.home, outside=self.outside,
                beside=self.beside, real_home=self.real_home, victim=self.victim.pid, target=target or self.victim.pid,
                address=self.address, own=f"specexit-{uuid.uuid4().hex}",
            ) for name, text in ATTEMPTS.items()
        }  # fmt: skip
        return _EACH.format(attempts=attempts)

    def reached(self) -> list[str]:
        """The effects on the host: connections and datagrams that arrived, new files."""
        came = select.select([*self._servers, *self._datagrams], [], [], 0)[0]
        new = [str(path) for folder in (self.outside, self.beside) for path in folder.iterdir()]
        return [str(one) for one in came] + new

    def forget(self) -> None:
        while came := select.select([*self._servers, *self._datagrams], [], [], 0)[0]:
            for one in came:
                one.accept()[0].close() if one in self._servers else one.recv(100)
        for folder in (self.outside, self.beside):
            for path in folder.iterdir():
                path.unlink()

    def close(self) -> None:
        for one in (*self._servers, *self._datagrams, self.victim.stdout):
            one.close()
        self.victim.kill()
        self.victim.wait()
        os.close(self.inherited)
        for place in (Path("/dev/shm"), Path("/tmp"), self.real_home.parent):
            for path in place.glob("*specexit-*"):
                if path.name.startswith(("specexit-", self.real_home.name)) and path.is_file():
                    path.unlink(missing_ok=True)


def unconfined(program: str, folder: Path) -> str:
    """What the same text prints in a plain Python with all that it can inherit."""
    folder.mkdir(exist_ok=True)
    environment = os.environ | {"SPECEXIT_TEST_SECRET": SECRET}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, env=environment, close_fds=False, capture_output=True, text=True,
        timeout=30,
    )  # fmt: skip
    return done.stdout


def alive(marker: str) -> bool:
    """Whether a process has this word in its command line."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if marker.encode() in path.read_bytes():
                return True
    return False


def in_threads(call, number: int) -> list:
    """call(i) for every i at once, each in a thread of its own."""
    found = [None] * number

    def one(place: int) -> None:
        found[place] = call(place)

    threads = [threading.Thread(target=one, args=(place,)) for place in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found
