"""How the requests of one call share the rows of the device, and the time that decoding takes."""

import dataclasses

MOST = 64


@dataclasses.dataclass(frozen=True)
class Auto:
    """As many rows as fit the memory of a device: few long ones, more short ones, `most` at most.

    cache_bytes: of a device, for the rows; None: what is free there. parked_bytes: of the host, for rows that wait for their turn;
    None: a share of what is free there. Raises ValueError on numbers below 1.
    """

    most: int = MOST
    cache_bytes: int | None = None
    parked_bytes: int | None = None

    def __post_init__(self):
        for name in ("most", "cache_bytes", "parked_bytes"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, but it is {value}.")


def rows_of(text: int | str, cache_bytes: int | None = None) -> int | Auto:
    """A number of rows as configs write it: a whole number, "auto" or "auto:MOST". cache_bytes: for auto. Raises ValueError, one
    sentence, on other words."""
    word, _, most = str(text).partition(":")
    if word == "auto" and (text == "auto" or most.isdecimal()):
        return Auto(int(most or MOST), cache_bytes)
    if not str(text).isdecimal() or int(text) < 1:
        raise ValueError(f"batch_size is a number of rows from 1 on, auto, or auto:N for at most N rows, not {text!r}.")
    return int(text)


def told_rows(rows: int | Auto) -> int | str:
    """As `rows_of` reads them."""
    if isinstance(rows, Auto):
        return "auto" if rows.most == MOST else f"auto:{rows.most}"
    return rows


@dataclasses.dataclass(frozen=True)
class Placement:
    """batch_size: rows that are decoded at a time; `Auto`: as the memory allows, in slots.

    refill: several rows are slots, and a slot takes the next request when its own is finished. Otherwise batches are closed:
    requests of similar prompt length are decoded together, and the batch ends with its longest answer. in_order: slots yield
    outcomes in the order of the requests; otherwise each outcome comes when its request is finished, so that a long answer
    delays no other. Closed batches ignore it. Raises ValueError on a batch_size below 1.
    """

    batch_size: int | Auto = 1
    refill: bool = True
    in_order: bool = True

    def __post_init__(self):
        if not isinstance(self.batch_size, Auto) and self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, but it is {self.batch_size}.")

    @property
    def in_slots(self) -> bool:
        """Whether the requests are decoded in slots; one row alone is a closed batch."""
        return isinstance(self.batch_size, Auto) or (self.refill and self.batch_size > 1)


@dataclasses.dataclass
class Clock:
    """How long decoding has taken so far: wall time in seconds, without compilation."""

    seconds: float = 0.0
