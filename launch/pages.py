"""Writes the tables of README.md and docs/*.md again from the digests in docs/results.

python -m launch.pages --root=.
A digest is what launch.evaluate, launch.calibrate and launch.ablate write with --digest=docs/results/NAME.json: the numbers that
the pages show, with the command, device and revision that they come from.
"""

from pathlib import Path

from absl import flags

from launch import door
from specexit_jax.evaluation.report.pages import pages_of, write_pages

_ROOT = flags.DEFINE_string("root", ".", "Folder that holds README.md and docs.")


def check() -> Path:
    """Returns the folder. Refuses one without pages."""
    root = Path(_ROOT.value)
    if not pages_of(root):
        raise FileNotFoundError(
            f"{root} holds neither README.md nor docs/*.md: name the clone's folder with --root=FOLDER."
        )
    return root


def main() -> None:
    changed = write_pages(check())
    door.say("\n".join(f"{path}: written anew" for path in changed) or "Every page says what its results say.")


if __name__ == "__main__":
    door.run(main)
