"""What all entry points share: flags, config, and errors as one sentence with exit code 1."""

import contextlib
import functools
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import ml_collections
from absl import app, flags, logging
from ml_collections import config_flags
from ml_collections.config_flags import tuple_parser

from launch import helptext, sentences
from specexit_jax.decoding.trees import TreeShape
from specexit_jax.parallel import distributed
from specexit_jax.storage.compilation_cache import SWITCH, keep_programs
from specexit_jax.storage.workdir_lock import locked

if TYPE_CHECKING:
    pass


class _WordsParser(tuple_parser.TupleParser):
    """Also reads words without quotes: a,b or a, (of one)."""

    def parse(self, argument):
        found = super().parse(argument)
        if not isinstance(argument, str) or found != (argument,):
            return found
        return tuple(word for word in (part.strip() for part in argument.strip("()[] ").split(",")) if word)


class _NumberOrWordParser(flags.ArgumentParser):
    """Of keys that are a whole number or a word, such as batch_size=8 or batch_size=auto."""

    def parse(self, argument):
        return int(argument) if str(argument).isdecimal() else argument


config_flags.register_flag_parser_for_type(tuple, _WordsParser())
config_flags.register_flag_parser_for_type(int | str, _NumberOrWordParser())
T = TypeVar("T")
_CONFIG = None
_HELD = contextlib.ExitStack()
flags.DEFINE_bool("traceback", False, "On an error, also print the Python traceback.")
flags.DEFINE_bool(
    "compilation_cache", True, "Keep compiled programs in the user's cache directory, so that the next start is faster."
)


def define_config(required: bool = True, workdir: bool = True) -> None:
    """--config=configs/X.py[:variant], overridable by --config.key=value, and --workdir=DIR (workdir False: not needed)."""
    global _CONFIG
    _CONFIG = config_flags.DEFINE_config_file(
        "config",
        None,
        "Experiment: configs/NAME.py, or configs/NAME.py:VARIANT. --config.KEY=VALUE overrides one value.",
    )
    flags.DEFINE_string("workdir", None, "Folder that this stage reads from and writes to.")
    if required:
        flags.mark_flags_as_required(["config", "workdir"] if workdir else ["config"])


def config() -> ml_collections.ConfigDict:
    """The experiment that --config named, overrides applied, frozen."""
    return ml_collections.FrozenConfigDict(_CONFIG.value)


def run(main: Callable[[], None]) -> None:
    """Parses the command line and calls `main`; errors that a user can mend become one sentence."""
    try:
        # absl itself answers a wrong flag in one sentence; a config file that fails to load it lets through.
        app.run(lambda _: _guarded(main), flags_parser=functools.partial(_parse, main))
    except KeyboardInterrupt:
        sys.exit(130)


def _parse(main: Callable[[], None], argv: list[str]) -> list[str]:
    if any(word in helptext.ASKING for word in argv[1:]):
        print(helptext.text(sys.modules[main.__module__].__doc__))
        sys.exit(0)
    try:
        rest = flags.FLAGS(argv)
        if _CONFIG is not None and flags.FLAGS["config"].value is not None:
            config()  # a file that is not there says so only when it is read
    except Exception as error:  # of flags, or of whatever a config file does
        fail(sentences.of_flags(error))
    if len(rest) > 1:
        fail(f"Unexpected argument {rest[1]!r}: every option is written --name=value.")
    return rest


def _guarded(main: Callable[[], None]) -> None:
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.FATAL)  # Orbax logs hundreds of lines of an error that it also raises
    try:
        distributed.initialize()
        if not flags.FLAGS.compilation_cache:
            os.environ[SWITCH] = "off"  # for whoever asks later in this process, too
        keep_programs()
        with _HELD:
            main()
    except BrokenPipeError:
        os._exit(1)  # whoever read our output has left (`| head`)
    except Exception as error:
        sentence = None if flags.FLAGS.traceback else sentences.of_error(error)
        if sentence is None:
            _leave_others(error)
            raise
        fail(sentence)


def _leave_others(error: Exception) -> None:
    """In a run of several processes: shows the error and ends this one."""
    if distributed.several():
        trace = "".join(traceback.format_exception(error)).rstrip()
        print(f"{distributed.prefix()}{trace}", file=sys.stderr)
        _end(1)


def _end(code: int) -> None:
    if distributed.several():  # sys.exit would wait until the others come to their end as well
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def fail(sentence: str) -> None:
    """Prints the error, and the process that it is of, and ends with exit code 1."""
    print(f"{distributed.prefix()}error: {sentence}", file=sys.stderr)
    _end(1)


def say(text: str, by_any: bool = False) -> None:
    """Prints without buffering, so that a pipe has it at once. Of several processes only the first prints, unless by_any: what
    one process says for all."""
    if by_any or distributed.is_first():
        print(text, flush=True)


def aside(text: str) -> None:
    """As `say`, but on standard error: for text that must not be part of the output."""
    if distributed.is_first():
        print(text, file=sys.stderr, flush=True)


def alone(stage: str) -> None:
    """Refuses a run of several processes for a stage that does not share its work."""
    if distributed.several():
        raise ValueError(f"{stage} is the work of one process: start it without a launcher of many.")


def claim(*paths: Path) -> None:
    """Refuses what another process is at (workdir_lock.py): holds the locks of these files until `main` ends.

    For what one process writes alone, asked before any work; of joined processes the first asks for all.
    """
    for path in paths:
        _HELD.enter_context(locked(path))


def until_end(resource: contextlib.AbstractContextManager[T]) -> T:
    """Enters a context that is left when `main` ends, however it ends."""
    return _HELD.enter_context(resource)


def claim_stage(stage: str) -> None:
    """`claim` of the files that a stage writes into WORKDIR, by its name."""
    if distributed.is_first():
        claim(Path(flags.FLAGS.workdir) / f".{stage}.lock")


def colours() -> bool:
    """Whether standard output is a terminal that wants them."""
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


def decode_on_one_thread() -> None:
    """Gives XLA's CPU backend one thread, unless NPROC says otherwise; call before anything runs on a device.

    Decoding one row, a step is hundreds of operations of a microsecond each: handed between two threads, a verify step of
    4 tokens took 1.5 times as long as on one.
    """
    os.environ.setdefault("NPROC", "1")


def splits(wanted: Sequence[str] | None, named: Sequence[str]) -> list[str]:
    """The splits that --splits asks for, else those that the config names; refuses one that the world does not have."""
    from specexit_jax.data.splits import SPLITS  # reasoning-gym: a second of imports

    for split in wanted or ():
        known("splits", split, tuple(SPLITS))
    return list(wanted or named)


def known(flag: str, name: str, names: Sequence[str]) -> None:
    """Refuses a name that is not among `names`, before any work."""
    if name not in names:
        raise ValueError(f"--{flag}: unknown name {name!r}, choose among {', '.join(names)}.")


def whole_numbers(flag: str, words: Sequence[str]) -> tuple[int, ...]:
    """The numbers of a list flag."""
    wrong = [word for word in words if not word.strip().isdecimal()]
    if wrong:
        raise ValueError(f"--{flag} must be whole numbers separated by commas, but it holds {wrong[0]!r}.")
    return tuple(int(word) for word in words)


def tree(words: Sequence[str] | None) -> TreeShape | None:
    """The tree that --tree=depth,top_k,total describes."""
    if words is None:
        return None
    sizes = whole_numbers("tree", words)
    if len(sizes) != 3:
        raise ValueError(f"--tree takes depth,top_k,total, not {len(sizes)} numbers.")
    return TreeShape(*sizes)
