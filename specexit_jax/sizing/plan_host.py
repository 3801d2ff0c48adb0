"""What a host holds and writes of traces and labels, and the hours that grading them takes."""

from specexit_jax.sizing.plan import GIB, Assumed, Machine, Work
from specexit_jax.sizing.plan_hours import HOUR

_BASE = 3 * GIB // 2  # host memory of Python, JAX and the tokenizer
PARSED = 37  # host memory of one token of a trace or an answer that is being read or written, its text included
_ENTRY = 2048  # of a trace in the index of its file (storage/row_index.py), with that of its label
_WAITING = 256  # traces that wait for their grades or to be written (annotation/rollout.py)
TABLES = (
    2**30
)  # of the stages that fit and replay: the score's table of at most 2^20 boundaries, outcomes, batches of signals
NUMBERS = 8  # signals and readings of a token, float32
BOUNDARY = 60  # bytes of a line in labels.jsonl for each boundary beside its answer


def host_bytes(work: Work, machine: Machine, held: float) -> int:
    """All processes of a host, each with one tensor that is being read and what it holds of files."""
    largest = 4 * work.target.vocab_size * work.target.hidden_size
    return int(-(-machine.processes // machine.hosts) * (_BASE + largest + held))


def held(traces: int, tokens: float) -> float:
    """What a stage holds of so many traces of `tokens` each, its answers included: their index, and those at work."""
    return traces * _ENTRY + min(traces, _WAITING) * tokens * PARSED


def token_bytes(work: Work) -> float:
    """Bytes of one token in a file: its id, two signs after it, and its text."""
    return 0.9 * len(str(work.target.vocab_size)) + 2 + 4.5


def grading_hours(pairs: float, assumed: Assumed, machine: Machine) -> float:
    return pairs * assumed.pair_seconds / (machine.graders * machine.processes) / HOUR
