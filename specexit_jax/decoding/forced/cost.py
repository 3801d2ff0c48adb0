"""What forcing answers has cost."""

import dataclasses


@dataclasses.dataclass
class ForceCost:
    """What forcing has cost so far.

    boundaries: number of forced boundaries, each under every key. tokens: of the answers. computed: tokens that the target
    computed in steps, idle branches and `</think>` included. reads: passes of a step over the prefix of one trace.
    read_tokens: prefix positions read in these passes. prefilled: tokens of traces. seconds: of everything but compilation,
    which took compile_seconds.
    """

    boundaries: int = 0
    tokens: int = 0
    computed: int = 0
    reads: int = 0
    read_tokens: int = 0
    prefilled: int = 0
    seconds: float = 0.0
    compile_seconds: float = 0.0
