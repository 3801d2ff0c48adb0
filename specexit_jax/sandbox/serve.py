"""The supervisor process, between the calling process and a judged program.

It reads one line of JSON from standard input and writes one line to standard output. Its standard input stays open as long as
the asking process waits for the answer. When that process ends, the program ends too. Two programs that talk with each other
get one supervisor each (`pair`). Starting takes longer than most programs run, so few modules are imported.
"""

import json
import sys

from specexit_jax.sandbox import supervisor


def main() -> None:
    request = json.loads(sys.stdin.buffer.readline())
    both = {name: request[name] for name in ("layers", "limits")}
    works = {name: request[name] | both for name in ("program", "judge") if name in request}
    if "judge" in works:
        from specexit_jax.sandbox import pair  # only here: most requests have one program

        answer = pair.serve(**works)
    else:
        answer = supervisor.serve(works["program"], {})
    print(json.dumps(answer), flush=True)
