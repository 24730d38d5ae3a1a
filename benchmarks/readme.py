"""The command `python -m benchmarks.readme RESULTS`: writes the table of the project's README from a results.json."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

_README = Path(__file__).parent.parent / "README.md"
# What stands between the two is written by this command.
_MARKED = re.compile(r"(?<=<!-- measured -->\n).*?(?=<!-- end of measured -->)", re.DOTALL)
_BEYOND_CACHES = 64 * 2**20
_FORWARD_TOO = ("bernoulli_log_prob", "normal_rsample")


def table(measurements: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Lines of Markdown: forward with backward, and what is often used without a gradient also forward."""
    yield "| operator, pass | shape | ours | eager | compile | × eager | × compile | memory |"
    yield "|---|---|---|---|---|---|---|---|"
    for found in measurements:
        if found["pass"] == "fwd" and found["operator"] not in _FORWARD_TOO:
            continue
        ours, eager, compiled = (found["timings"][name]["p20"] for name in ("ours", "eager", "compile"))
        memory = found["timings"].get("memory")
        share = f"{memory['p20'] / ours:.0%}" if memory and found["bytes_moved"] >= _BEYOND_CACHES else ""
        cells = [
            f"`{found['operator']}` {found['pass']}",
            " × ".join(f"{size:,}" for size in found["shape"]),
            *map(_time, (ours, eager, compiled)),
            f"{eager / ours:.1f}",
            f"{compiled / ours:.1f}",
            share,
        ]
        yield f"| {' | '.join(cells)} |"


def _time(microseconds: float) -> str:
    return f"{microseconds:.1f}" if microseconds < 100 else f"{microseconds:,.0f}"


def main(results: Path) -> None:
    """Replaces the marked part of the README."""
    lines = table(json.loads(results.read_text())["measurements"])
    text, count = _MARKED.subn("\n".join(lines) + "\n", _README.read_text())
    if count != 1:
        sys.exit(f"{_README} has {count} parts between '<!-- measured -->' and '<!-- end of measured -->', expected 1")
    _README.write_text(text)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m benchmarks.readme RESULTS.json")
    main(Path(sys.argv[1]))
