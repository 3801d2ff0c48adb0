"""A request shown as it is decoded: the thinking dimmed, a meter for each signal where a step of it ends."""

from collections.abc import Iterator

from launch import transcript
from specexit_jax.engine.requests import Outcome
from specexit_jax.engine.streaming import Piece
from specexit_jax.exits.signals import share_text

WIDTH = 10  # cells of a meter
REMAIN = 512.0  # tokens that fill the meter of what remains


def show(pieces: Iterator[Piece], colours: bool) -> Outcome:
    """Prints the pieces as they come and returns the outcome."""
    shown, outcome, thinking = None, None, True
    for piece in pieces:
        # Signals speak of the end of a step; what follows it in the same piece comes behind them.
        step, end, rest = piece.text.rpartition("\n\n")
        if end and piece.signals and piece.signals != shown:
            shown = piece.signals
            rest = f"{meters(shown)}\n\n{rest}"
        _write(transcript.styled(step + end + rest, transcript.DIM, colours and thinking))
        thinking, outcome = piece.thinking, piece.outcome
    _write("\n")
    return outcome


def meters(signals: tuple[float, float, float]) -> str:
    """One line: a bar for each signal and its value; the bar of what remains is full at 512 tokens."""
    confidence, progress, remain = signals
    return (
        f"    confidence {_bar(confidence)} {share_text(confidence)}   progress {_bar(progress)} {share_text(progress)}   "
        f"remain {_bar(remain / REMAIN)} {remain:.0f}"
    )


def _bar(share: float) -> str:
    full = round(WIDTH * min(max(share, 0.0), 1.0))
    return "█" * full + "░" * (WIDTH - full)


def _write(text: str) -> None:
    print(text, end="", flush=True)
