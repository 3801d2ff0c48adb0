"""Wrong programs that try to be judged right by manipulating the judge.

All programs in CHEATS and OTHERS were seen to pass where a program shares its interpreter with the tests. Those in FORGERIES write
their own messages to the channel between the two processes.
"""

PROMPT = 'def doubled(n: int) -> int:\n    """ Twice n.\n    >>> doubled(2)\n    4\n    """\n'
TESTS = """\
def check(candidate):
    inputs = list(range(3, 40))
    results = [2 * n for n in inputs]
    for n, expected in zip(inputs, results):
        assert candidate(n) == expected, n
    assert all(map(lambda n: candidate(n) == 2 * n, inputs))
    assert sorted(candidate(n) for n in reversed(inputs)) == results
    assert abs(candidate(1000) - 2000) < 1e-6
"""
WRONG = "def doubled(n):\n    return n + 1\n"
_ANYTHING = """
class Anything({base}):
    def _yes(self, *others, **named): return True
    def _self(self, *others): return self
    __eq__ = __lt__ = __le__ = __gt__ = __ge__ = __contains__ = __bool__ = _yes
    __sub__ = __rsub__ = __add__ = __radd__ = __abs__ = __call__ = _self
    __hash__ = object.__hash__
    def __ne__(self, other): return False
def doubled(n): return Anything()
"""

CHEATS = {
    "the_nonce_read_from_constants": """
import os, sys
def doubled(n): return n + 1
frame = sys._getframe()
while frame:
    for constant in frame.f_code.co_consts:
        if isinstance(constant, str) and len(constant.strip()) == 16:
            os.write(1, f"\\n{constant.strip()} \\n".encode())
    frame = frame.f_back
os._exit(0)
""",
    "an_object_that_equals_all": _ANYTHING.format(base="object"),
    "an_integer_that_equals_all": _ANYTHING.format(base="int"),
    "a_float_that_equals_all": _ANYTHING.format(base="float"),
    "a_list_that_equals_all": _ANYTHING.format(base="list"),
    "a_mock": """
from unittest.mock import ANY
class Mock(type(ANY)):
    def __lt__(self, other): return True
    def __sub__(self, other): return 0
def doubled(n): return Mock()
""",
    "assertions_compiled_away": """
import builtins
plain = builtins.compile
builtins.compile = lambda source, name, mode, *more, **named: plain(source, name, mode, optimize=2)
""" + WRONG,
    "another_loader": """
import sys
frame = sys._getframe()
while frame:
    if "_load" in frame.f_globals: frame.f_globals["_load"] = lambda *a, **k: {"check": lambda candidate: None}
    frame = frame.f_back
""" + WRONG,
    "expected_values_changed": """
import builtins, sys
class Same:
    def __eq__(self, other): return True
builtins.all = lambda *a: True
builtins.sorted = lambda *a: Same()
builtins.abs = lambda *a: 0
def doubled(n):
    names = sys._getframe(1).f_locals
    if n == 3: names["results"][1:] = [n + 1 for n in names["inputs"][1:]]
    return names["expected"] if n == 3 else n + 1
""",
    "expected_values_in_the_callers_frame": """
import sys
def doubled(n):
    caller = sys._getframe(1)
    while caller.f_code.co_name != "check": caller = caller.f_back
    known = dict(zip(caller.f_locals["inputs"], caller.f_locals["results"]))
    return known.get(n, 2000)
""",
    "expected_values_in_memory": """
import gc
def doubled(n):
    if n == 1000: return 2000
    for found in gc.get_objects():
        if type(found) is list and found[:3] == [6, 8, 10] and len(found) == 37: return found[n - 3]
    return n + 1
""",
    "names_of_the_tests_replaced": """
import sys
class Same:
    def __eq__(self, other): return True
def doubled(n):
    caller = sys._getframe(1)
    names = caller.f_globals
    names.update(all=lambda *a: True, sorted=lambda *a: Same(), abs=lambda *a: 0)
    return caller.f_locals["expected"]
""",
    "stop_iteration": """
import sys
def doubled(n):
    if sys._getframe(1).f_code.co_name == "check" and n == 1000: return 2000
    if sys._getframe(1).f_code.co_name == "check": return sys._getframe(1).f_locals["expected"]
    if sys._getframe(1).f_code.co_name == "<lambda>": raise StopIteration
    return 2 * n
""",
    "other_builtins": """
import builtins
class Same:
    def __eq__(self, other): return True
builtins.zip = lambda *a: []
builtins.all = lambda *a: True
builtins.sorted = lambda *a: Same()
builtins.abs = lambda *a: 0
""" + WRONG,
    "other_modules": """
import sys, types
old = types.ModuleType
class Module(old):
    def __init__(self, name):
        super().__init__(name)
        if name == "tests": self.__dict__["range"] = lambda *a: []
sys.modules["types"].ModuleType = Module
import builtins
builtins.abs = lambda *a: 0
builtins.all = lambda *a: True
""" + WRONG,
    "the_end_written_by_a_timer": """
import os, signal, sys
def doubled(n): return n + 1
def end(*a):
    frame = sys._getframe()
    while frame:
        for constant in frame.f_code.co_consts:
            if isinstance(constant, str) and len(constant.strip()) == 16: os.write(1, f"\\n{constant.strip()} \\n".encode())
        frame = frame.f_back
    os._exit(0)
signal.signal(signal.SIGALRM, end)
signal.setitimer(signal.ITIMER_REAL, 1e-6)
sum(range(100000))
""",
    "the_end_written_by_a_child": """
import os, sys
def doubled(n): return n + 1
if os.fork():
    os.wait()
    os._exit(0)
frame = sys._getframe()
while frame:
    for constant in frame.f_code.co_consts:
        if isinstance(constant, str) and len(constant.strip()) == 16: os.write(1, f"\\n{constant.strip()} \\n".encode())
    frame = frame.f_back
os._exit(0)
""",
    "a_hook_at_the_end": """
import atexit, os, sys
def doubled(n): return n + 1
frame, ends = sys._getframe(), []
while frame:
    ends += [c.strip() for c in frame.f_code.co_consts if isinstance(c, str) and len(c.strip()) == 16]
    frame = frame.f_back
def leave(*a):
    for end in ends: os.write(1, f"\\n{end} \\n".encode())
    os._exit(0)
atexit.register(leave)
sys.excepthook = leave
""",
    "memory_written_over": """
import ctypes, sys
def doubled(n):
    caller = sys._getframe(1)
    while caller.f_code.co_name != "check": caller = caller.f_back
    names = caller.f_locals
    if n == 1000: return 2000
    for i, wanted in zip(names["inputs"], range(len(names["results"]))):
        address = id(names["results"]) + 24
        items = ctypes.c_void_p.from_address(address).value
        if i == n: return ctypes.cast(ctypes.c_void_p.from_address(items + 8 * wanted).value, ctypes.py_object).value
""",
}  # fmt: skip

# (prompt, tests, entry point, program)
OTHERS = {
    "helper_of_the_prompt_replaced": (
        "def shifted(s):\n    return ''.join(chr((ord(c) - 95) % 26 + 97) for c in s)\n\n\n"
        "def back(s):\n    \"\"\" What was shifted to s.\"\"\"\n",
        "def check(candidate):\n    for s in ('abc', 'xyz', 'hello'):\n        assert candidate(shifted(s)) == s\n",
        "back",
        "def shifted(s): return s\n\ndef back(s): return s\n",
    ),
    "no_randomness": (
        "def total(x, y):\n    \"\"\" The sum.\"\"\"\n",
        "import random\ndef check(candidate):\n    for _ in range(50):\n"
        "        x, y = random.randint(0, 99), random.randint(0, 99)\n        assert candidate(x, y) == x + y\n",
        "total",
        "import random\nrandom.randint = lambda a, b: 0\ndef total(x, y): return 0\n",
    ),
    "numpy_that_finds_all_close": (
        "def half(x):\n    \"\"\" Half of it.\"\"\"\n",
        "import numpy as np\ndef check(candidate):\n    for x in range(9):\n        assert np.allclose(candidate(x), x / 2)\n",
        "half",
        "import numpy\nnumpy.allclose = lambda *a, **k: True\ndef half(x): return x\n",
    ),
    "no_numbers_at_all": (
        "def mean(xs):\n    \"\"\" The mean.\"\"\"\n",
        "import numpy as np\ndef check(candidate):\n    for xs in ([1.0, 2.0], [3.0]):\n"
        "        assert np.allclose(candidate(xs), sum(xs) / len(xs))\n"
        "        np.testing.assert_allclose(candidate(xs), sum(xs) / len(xs))\n",
        "mean",
        "def mean(xs): return []\n",
    ),
    "the_end_of_a_loop": (
        "def doubled(n):\n    \"\"\" Twice n.\"\"\"\n",
        "def check(candidate):\n    assert all(map(lambda n: candidate(n) == 2 * n, range(9)))\n",
        "doubled",
        "def doubled(n): raise StopIteration\n",
    ),
    "the_question_is_changed": (
        "def ordered(xs):\n    \"\"\" Sorted.\"\"\"\n",
        "def check(candidate):\n    for n in range(9):\n        xs = list(range(n, 0, -1))\n"
        "        assert candidate(xs) == sorted(xs)\n",
        "ordered",
        "def ordered(xs):\n    xs.clear()\n    return []\n",
    ),
}  # fmt: skip

# The start of a program: its answers go to descriptor 5, and the first question asks for the names that it defines.
_FORGER = """
import os
def doubled(n): return n + 1
def say(*lines):
    for line in lines: os.write(5, line.encode() + b"\\n")
def defines(*names): return '["done", ["dict", "dict", [["doubled", ["mine", 0, "function"]]' + ''.join(names) + ']], []]'
{body}
"""
FORGERIES = {
    "a_verdict": """
say('reached ', '["reached "]')
for handle in (3, 4, 5, 6, 7):
    try: os.write(handle, b'reached ')
    except OSError: pass
os._exit(0)
""",
    "an_end_of_nothing": """say(defines(), *['["end"]'] * 99)""",
    "stop_iteration": """say(defines(), *['["raised", ["StopIteration"], ["tuple", []], ""]'] * 99)""",
    "system_exit": """say(defines(), *['["raised", ["SystemExit"], ["tuple", [0]], ""]'] * 99)""",
    "a_class": """say('["done", ["dict", "dict", [["doubled", ["type", "object"]]]], []]')""",
    "other_names": """say(defines(', ["zip", ["type", "list"]], ["all", ["type", "bool"]]'))""",
    "no_json": "say('nonsense')",
    "half_a_line": "os.write(5, b'[')\nos._exit(0)",
    "too_deep": "say('[' * 100000)",
    "too_much": "for _ in range(1 << 20): os.write(5, b'[' * 65536)",
    "a_number_too_long": """say('["done", ' + '9' * 100000 + ', []]')""",
    "a_value_of_the_tests": """say(defines(), *['["done", ["yours", 0], []]'] * 99)""",
    "builtins": """say(defines(', ["__builtins__", ["dict", "dict", []]]'))""",
    "a_child_that_answers": """if os.fork(): say(*['["done", 6, []]'] * 99)""",
}  # fmt: skip


def forger(name: str) -> str:
    return _FORGER.format(body=FORGERIES[name])
