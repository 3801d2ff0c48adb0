"""Identities (digests) that files record of the model they were made for, and the older forms of those identities."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path


class Identity(str):
    """An identity, compared as text; `same` also accepts its older form. formerly: computes the older form, called only
    if a file may hold one."""

    formerly: Callable[[], str] | None = None

    def __new__(cls, text: str, formerly: Callable[[], str] | None = None) -> Identity:
        made = super().__new__(cls, text)
        made.formerly = formerly
        return made

    def renamed(self, form: Callable[[str], str]) -> Identity:
        """Both forms passed through the same function."""
        formerly = self.formerly
        return Identity(form(self), None if formerly is None else lambda: form(formerly()))


def same(name: str | None, recorded: str | None) -> bool:
    """Whether a file's record, in the present or an older form, is the identity `name`."""
    if name == recorded:
        return True
    known = isinstance(name, Identity) and name.formerly is not None and isinstance(recorded, str)
    return known and "sha256:" in recorded and name.formerly() == recorded


def file_digest(path: str | Path) -> str:
    """SHA-256 of a file's bytes."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such weights file; a policy is tied to its draft's weights")
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
