"""What the sandboxed interpreter runs where there is only a program: program.py, as __main__; never imported.

Arguments: the folders of installed packages.
"""

import os
import sys
import types

sys.path += sys.argv[1:]
sys.argv[:] = ["program.py"]
if os.path.exists("program.py"):
    with open("program.py", "rb") as file:
        source = file.read()
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main
    exec(compile(source, "program.py", "exec"), main.__dict__)
