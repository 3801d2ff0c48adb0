"""Entry points started one after another in one process, as far as their up-front checks: the program of test_commands.

Reads a list of {"name", "arguments", "show"} as JSON; writes one of {"code", "out", "err", "value"}: what a shell would see, and
the config's value at the path `show`. Nothing is decoded, trained or written.
"""

import contextlib
import importlib
import io
import json
import runpy
import sys

from absl import flags


def forget() -> None:
    """Every flag and module of an earlier entry point."""
    for module, defined in list(flags.FLAGS.flags_by_module_dict().items()):
        for flag in list(defined):
            own = module.startswith("launch") or "/launch/" in module or flag.name.partition(".")[0] == "config"
            if own and flag.name in flags.FLAGS:
                delattr(flags.FLAGS, flag.name)
    for name in [name for name in sys.modules if name == "launch" or name.startswith("launch.")]:
        del sys.modules[name]
    sys.modules.pop("config_config", None)  # the last config file, by ml_collections' name for it
    flags.FLAGS.unparse_flags()


def start(name: str, arguments: list[str], show: str = "") -> dict:
    """Parses the command line, loads the config and runs the entry point's `check`."""
    forget()
    sys.argv = [f"launch/{name}.py", *arguments]
    door, found = importlib.import_module("launch.door"), {}
    importlib.import_module("launch.stages").require_sandbox = lambda: None  # what is checked is not this machine
    run = door.run

    def checked(main):
        def check():
            main.__globals__["check"]()
            if show:
                value = door.config()
                for key in show.split("."):
                    value = value[key]
                found["value"] = value

        check.__module__ = main.__module__
        run(check)

    door.run = checked
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            runpy.run_module(f"launch.{name}", run_name="__main__", alter_sys=True)
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
    return {"code": code, "out": out.getvalue(), "err": err.getvalue(), **found}


if __name__ == "__main__":
    commands = json.load(sys.stdin)
    json.dump([start(**command) for command in commands], sys.stdout)
