"""The ``narrows`` program, as ``narrows`` or ``python -m narrows``: the same one that Cargo builds."""

from __future__ import annotations

import signal
import sys

from ._narrows import run_program


def main() -> int:
    """Run the program with this process's arguments; returns its exit code."""
    # Python would note Ctrl-C and look at it when the program has ended.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    return run_program(["narrows", *sys.argv[1:]], [sys.executable, "-m", "narrows"])


if __name__ == "__main__":
    sys.exit(main())
