"""Checks, before anything is installed, that this machine can build vae_ext."""

import importlib.util
import os
import sys
import sysconfig

from build_config import BuildError, check_python_headers, find_compiler


def check_venv() -> None:
    # Debian ships `venv` in the base package, but what it needs to work, `ensurepip`, in another.
    if importlib.util.find_spec("venv") is None or importlib.util.find_spec("ensurepip") is None:
        raise BuildError("Python's venv module is missing: install it (Debian, Ubuntu: apt install python3-venv).")


try:
    check_venv()
    check_python_headers(sysconfig.get_path("include"))
    find_compiler(os.environ)
except BuildError as error:
    sys.exit(str(error))
