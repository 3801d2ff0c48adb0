"""--digest: writes the numbers of a run that the pages show into a small file (see launch.pages)."""

import shlex
import sys
from pathlib import Path
from typing import Any

from absl import flags

from launch import door
from specexit_jax.evaluation.report.digest import of_results, of_rows, save_digest

_DIGEST = flags.DEFINE_string(
    "digest", None, "Also write the numbers that the pages show of this run to docs/results/NAME.json."
)


def offered(kind: str, found: Any) -> None:
    """Writes the digest if --digest is given. found: results.json, or the rows of frontier.json or ablations.json."""
    if _DIGEST.value is None:
        return
    content = of_results(found) if kind == "evaluation" else of_rows(kind, found)
    save_digest(_DIGEST.value, kind, command(), content)
    door.say(f"digest: {_DIGEST.value}; python -m launch.pages writes it into the pages")


def command() -> str:
    """The running command, without --digest."""
    program, *words = sys.argv
    if "--digest" in words:  # its value is the word after it
        del words[words.index("--digest") : words.index("--digest") + 2]
    words = [word for word in words if not word.startswith("--digest=")]
    return shlex.join(["python", "-m", f"launch.{Path(program).stem}", *words])
