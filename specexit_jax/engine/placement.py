"""How the requests of one call share the rows of the device, and the time that decoding takes."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Placement:
    """batch_size: rows that are decoded at a time.

    refill: several rows are slots, and a slot takes the next request when its own is finished. Otherwise batches are closed:
    requests of similar prompt length are decoded together, and the batch ends with its longest answer. in_order: slots yield
    outcomes in the order of the requests; otherwise each outcome comes when its request is finished, so that a long answer
    delays no other. Closed batches ignore it. Raises ValueError on a batch_size below 1.
    """

    batch_size: int = 1
    refill: bool = True
    in_order: bool = True

    def __post_init__(self):
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, but it is {self.batch_size}.")

    @property
    def in_slots(self) -> bool:
        """Whether the requests are decoded in slots; one row alone is a closed batch."""
        return self.refill and self.batch_size > 1


@dataclasses.dataclass
class Clock:
    """How long decoding has taken so far: wall time in seconds, without compilation."""

    seconds: float = 0.0
