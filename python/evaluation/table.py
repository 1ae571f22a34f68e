"""Rows to a table, on paper and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def show(rows: Sequence[Mapping[str, Any]], target: str | None = None) -> None:
    """Print rows of equal keys, numbers to the right; write them to ``target`` as JSON."""
    if not rows:
        print("nothing was measured")
        return
    texts = [[_text(row[key]) for key in rows[0]] for row in rows]
    widths = [max(len(key), *(len(line[column]) for line in texts)) for column, key in enumerate(rows[0])]
    print("  ".join(key.rjust(width) for key, width in zip(rows[0], widths, strict=True)))
    for line in texts:
        print("  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)))
    if target is not None:
        Path(target).write_text(json.dumps(list(rows), indent=1) + "\n")


def _text(value: Any) -> str:
    return f"{value:,.3f}" if isinstance(value, float) else str(value)
