"""A request shown as it is decoded: the thinking dimmed, a meter for each signal where a step of it ends."""

from collections.abc import Iterator, Mapping

from launch import transcript
from specexit_jax.api.answer import Answer, Piece
from specexit_jax.exits.signals import SIGNALS

WIDTH = 10  # cells of a meter


def show(pieces: Iterator[Piece], colours: bool, meters: bool = True) -> Answer:
    """Prints the pieces as they come, with the signals' meters if wanted, and returns the whole answer."""
    shown, answer, last = None, None, "\n"
    for piece in pieces:
        # Signals speak of the end of a step; what follows it in the same piece comes behind them.
        step, end, rest = piece.text.rpartition("\n\n")
        if meters and end and piece.signals and piece.signals != shown:
            shown = piece.signals
            rest = f"{meter_line(shown)}\n\n{rest}"
        _write(transcript.styled(step + end + rest, transcript.DIM, colours and piece.thinking))
        answer, last = piece.answer, piece.text[-1:] or last
    if last != "\n":
        _write("\n")
    return answer


def meter_line(signals: Mapping[str, float]) -> str:
    """One line: a bar for each signal and its value; a bar of tokens is full at 512."""
    scales = [SIGNALS[name].scale for name in signals]
    bars = [
        f"{name} {_bar(value / scale.full)} {scale.text(value)}"
        for scale, (name, value) in zip(scales, signals.items(), strict=True)
    ]
    return "    " + "   ".join(bars)


def _bar(share: float) -> str:
    full = round(WIDTH * min(max(share, 0.0), 1.0))
    return "█" * full + "░" * (WIDTH - full)


def _write(text: str) -> None:
    print(text, end="", flush=True)
