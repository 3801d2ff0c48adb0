"""Two processes without a model, which test_multiprocess launches: `cluster_case --workdir=FOLDER END`.

Both wait for a signal. END: fail, process 1 ends with an error; die, it is killed; wait, neither.
"""

import os
import signal
import sys
import time
from pathlib import Path


def main(folder: Path, end: str):
    number = int(os.environ["JAX_PROCESS_ID"])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    (folder / f"own_{number}").write_text(str(os.getpid()))
    (folder / f"own_{number}").rename(folder / f"pid_{number}")  # whole, or not there
    while not (folder / f"pid_{1 - number}").exists():
        time.sleep(0.01)
    if number == 1 and end == "fail":
        sys.exit("error: the second process has had enough")
    if number == 1 and end == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(300)


if __name__ == "__main__":
    main(Path(sys.argv[1].removeprefix("--workdir=")), sys.argv[2])
