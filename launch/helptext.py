"""--help of an entry point: its docstring and all of its flags, those of imported modules included."""

import sys
import textwrap

from absl import flags

ASKING = ("--help", "-help", "-h", "--h", "-?", "--helpshort", "-helpshort", "--helpfull", "-helpfull")
_WIDTH = 120


def text(doc: str | None) -> str:
    """The entry point's docstring and its flags; its own flags come first."""
    ours = {name: own for name, own in flags.FLAGS.flags_by_module_dict().items() if _is_ours(name)}
    parts, told = [(doc or "").strip()], set()
    for module in sorted(ours, key=lambda name: (name != sys.argv[0], name)):
        rows = [_row(flag) for flag in ours[module] if flag.name not in told]
        told |= {flag.name for flag in ours[module]}
        parts.append("\n".join(rows))
    return "\n\n".join(part for part in parts if part)


def _is_ours(module: str) -> bool:
    return module == sys.argv[0] or module.startswith("launch.")


def _row(flag: flags.Flag) -> str:
    name = f"--[no]{flag.name}" if flag.boolean else f"--{flag.name}=…"
    says = [flag.help or ""]
    if flag.default is not None and flag.default is not False:
        says.append(f"[{flag.default_as_str.strip(chr(39))}]")
    about = textwrap.wrap(" ".join(part for part in says if part), _WIDTH - 6, break_on_hyphens=False)
    return "\n".join([f"  {name}", *(f"      {line}" for line in about)])
