"""An exception as one sentence, if the user can mend its cause; None for a fault of this program."""

import re
import traceback
import zipfile
import zlib
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent
_OWN = ("launch", "specexit_jax", "configs")  # packages whose errors are faults of this program
_LONGEST = 400  # characters of a library's message
# Errors of these libraries mostly come from a bad input file or a lack of resources.
_OUTSIDE = (
    LookupError,
    ArithmeticError,
    EOFError,
    ImportError,
    MemoryError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
)
_FLAGS = re.compile(r"(?<![\w.-])((?:draft|policy|prompt_ids)=)")  # arguments of the library that are flags here
_LIBRARIES = {
    "jinja2": "The target's chat template cannot be applied",
    "safetensors": "A safetensors file cannot be read",
    "zipfile": "A zip file cannot be read",
    "zlib": "A compressed file cannot be read",
    "pyarrow": "A table cannot be read",
    "httpx": "The hub cannot be reached",
    "requests": "The hub cannot be reached",
    "yaml": "A YAML file cannot be read",
    "jaxlib": "The device cannot run this",
    "jax": "The device cannot run this",
}


def of_error(error: Exception) -> str | None:
    """The sentence. The messages of OSError and ValueError are used as they are; for others the library or the place is
    named. None: a fault of this program, whose call stack is shown."""
    if isinstance(error, OSError | ValueError):
        return _FLAGS.sub(r"--\1", _line(error)) or type(error).__name__
    library = type(error).__module__.partition(".")[0]
    foreign = library not in ("builtins", "specexit_jax", "launch") or type(error) is Exception
    if not foreign and not isinstance(error, _OUTSIDE) and _frames(error)[-1:] == _ours(error)[-1:]:
        return None
    said = _line(error)[:_LONGEST]
    if library in _LIBRARIES:
        return f"{_LIBRARIES[library]}: {said or type(error).__name__}"
    places = _ours(error)
    where = f" ({places[-1]}; --traceback shows more)" if places else ""
    return f"{type(error).__name__}: {said}{where}" if said else f"{type(error).__name__}{where}"


def of_flags(error: Exception) -> str:
    """The message of ml_collections or absl about a wrong option, without call stacks and nested quotes."""
    text = str(error).replace("\\n", "\n").replace("\\'", "'")
    if "Traceback" in text:
        return text.strip().splitlines()[-1].partition(": ")[2]
    text = re.sub(r"\('([^']*)', '([^']*)'\)", r"\1: \2", " ".join(text.split()))  # a message of two parts
    if misspelt := re.search(r'Did you mean "(.*)" instead of "(.*)"\?', text):
        return f"The config has no key {misspelt[2]!r}: did you mean {misspelt[1]!r}?"
    if unknown := re.fullmatch(r"[\"']+([\w.\[\]]+)[\"']+", text):
        return f"The config has no key {unknown[1]!r}: the keys stand in the file that --config names."
    if "has no attribute 'get_config'" in text:
        return "The file that --config names has no get_config(): give one of configs/."
    if absent := re.search(r"No such file or directory: '(.*)'", text):
        return f"There is no config file {absent[1]}."
    if missing := re.search(r"Flag --(\w+) must have a value other than None", text):
        example = {"config": "=configs/embedded.py", "workdir": "=FOLDER"}.get(missing[1], "=…")
        return f"--{missing[1]} is missing: give --{missing[1]}{example}."
    if early := re.search(r"Unknown command line flag '(config\.[\w.]+)'|Found --(config\.\S+) in argv before", text):
        name = (early[1] or early[2]).partition("=")[0]
        return f"--{name} changes a value of a config: give --config=configs/NAME.py before it."
    return text


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def _frames(error: Exception) -> list[str]:
    return [f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]


def _ours(error: Exception) -> list[str]:
    """The stack frames in this repository's own code, as PATH:LINE."""
    own = tuple(str(_ROOT / name) for name in _OWN)
    return [frame for frame in _frames(error) if frame.startswith(own)]
