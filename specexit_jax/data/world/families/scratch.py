"""Elementary operations worked out digit by digit, as in school, with an optional slip (a mistake in one column).

A small model hardly learns "35+47=82" as one step; it learns the columns "5+7=12 3+4+1=8 so 82" quickly. Each operation
costs a handful of tokens, which is what thinking is for. A *slip* is one wrong column (a forgotten carry, a borrow not
paid back, a neighbour in the times table): it gives the world its wrong first answers.
"""

import dataclasses
import random


class CannotWork(Exception):
    """The operation leaves the range that the world writes out (a negative difference, a rest, two long factors)."""


@dataclasses.dataclass
class Scratch:
    """Writes operations. Each operation that is hard enough slips with probability `slip`, at most one in all.

    Hard are columns with a carry or a borrow, a division with a rest between its digits, times tables from 6 on, and
    whatever a family calls hard: an easy problem is never got wrong on the way, as with people.
    """

    slip: float = 0.0
    rng: random.Random | None = None
    slipped: bool = False

    def _slips(self, hard: bool) -> bool:
        if self.slip and hard and not self.slipped and self.rng.random() < self.slip:
            self.slipped = True
            return True
        return False

    def choose(self, right: str, wrong: str, hard: bool) -> str:
        """A choice that can go wrong outside arithmetic: a gender, a factor, a rule."""
        return wrong if self._slips(hard and wrong != right) else right

    def add(self, a: int, b: int) -> tuple[str, int]:
        """a + b for a, b >= 0: (text, result). A slip forgets the carry."""
        if a < 10 and b < 10:
            return f"{a}+{b}={a + b}", a + b
        columns, digits, carry, slip = [], [], 0, None
        for i in range(max(len(str(a)), len(str(b)))):
            x, y = a // 10**i % 10, b // 10**i % 10
            if carry and slip is None and (slip := self._slips(True)):
                carry = 0
            total = x + y + carry
            columns.append(f"{x}+{y}+1={total}" if carry else f"{x}+{y}={total}")
            carry, digit = divmod(total, 10)
            digits.append(digit)
        return self._columns(f"{a}+{b}", columns, [*digits, carry])

    def subtract(self, a: int, b: int) -> tuple[str, int]:
        """a - b for a >= b >= 0: (text, result). A slip does not pay the borrow back."""
        if a < b:
            raise CannotWork(f"{a}-{b} is negative")
        if a < 10 or b == 0:
            return f"{a}-{b}={a - b}", a - b
        columns, digits, borrow, slip = [], [], 0, None
        for i in range(len(str(a))):
            if borrow and slip is None and (slip := self._slips(True)):
                borrow = 0
            top, y = a // 10**i % 10 - borrow, b // 10**i % 10
            if i == len(str(a)) - 1 and top == 0 and y == 0:
                break  # nothing is left in front
            borrow = 1 if top < y else 0
            top += 10 * borrow
            columns.append(f"{top}-{y}={top - y}")
            digits.append(top - y)
        return self._columns(f"{a}-{b}", columns, digits)

    def multiply(self, a: int, b: int) -> tuple[str, int]:
        """a * b where one factor is at most 10: (text, result). A slip forgets the carry or takes the table's next row."""
        if b > 10:
            a, b = b, a
        if b > 10:
            raise CannotWork(f"{a}*{b} has two long factors")
        if a <= 10 or b == 10 or b == 0:
            value = a * b + (b if self._slips(6 <= min(a, b) and max(a, b) < 10) else 0)
            return f"{a}*{b}={value}", value
        columns, digits, carry, slip = [], [], 0, None
        for x in map(int, str(a)[::-1]):
            if carry and slip is None and (slip := self._slips(True)):
                carry = 0
            total = x * b + carry
            columns.append(f"{x}*{b}+{carry}={total}" if carry else f"{x}*{b}={total}")
            carry, digit = divmod(total, 10)
            digits.append(digit)
        return self._columns(f"{a}*{b}", columns, [*digits, carry])

    def divide(self, a: int, b: int) -> tuple[str, int]:
        """a / b without a rest, b at most 10: (text, result). A slip loses the rest between two digits."""
        if not 0 < b <= 10 or a % b:
            raise CannotWork(f"{a}/{b} is not worked out here")
        if a <= 10 * b:
            return f"{a}/{b}={a // b}", a // b
        columns, digits, rest, slip = [], [], 0, None
        for digit in map(int, str(a)):
            if rest and slip is None and digit >= b and (slip := self._slips(True)):
                rest = 0
            part = 10 * rest + digit
            quotient, rest = divmod(part, b)
            if part >= b or digits:
                columns.append(f"{part}/{b}={quotient}" + (f" r{rest}" if rest else ""))
                digits.append(quotient)
        return self._columns(f"{a}/{b}", columns, digits[::-1])

    @staticmethod
    def _columns(head: str, columns: list[str], digits: list[int]) -> tuple[str, int]:
        value = int("".join(map(str, digits[::-1])))
        return f"{head}: {' '.join(columns)} so {value}", value
