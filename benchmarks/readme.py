"""The command `python -m benchmarks.readme RESULTS.json`: all that is written and drawn from a results.json.

The measured part of the project's README; and beside the file README.md, with every table, and the pictures.
"""

from __future__ import annotations

import os
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

from benchmarks import figures, results, summary, tables
from benchmarks.results import Document
from vae_ext.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
PROJECT_README = ROOT / "README.md"
# What stands between the two is written by this command.
MARKED = re.compile(r"(?<=<!-- measured -->\n).*?(?=<!-- end of measured -->)", re.DOTALL)

_FORWARD_TOO = ("bernoulli_log_prob", "normal_rsample")
_CAPTIONS = {
    "speed.png": "How many times as fast as eager PyTorch and torch.compile every operator is",
    "training.png": "Samples per second and peak memory of whole training steps",
    "scaling.png": "How time grows with batch, event and samples, and what a second thread gains",
    "accuracy.png": "Errors against float64",
}


def section(document: Document, folder: str) -> str:
    """The measured part of the project's README, for results that are in `folder`, seen from there."""
    lines = [_where(document, folder), "", *_readme_table(document)]
    lines += ["", *(f"- {line}" for line in summary.lines(document))]
    lines += _slower(document)
    for name, part in figures.PARTS.items():
        if document[part]:
            lines += ["", f"![{_CAPTIONS[name]}]({folder}/{name})"]
    return "\n".join(lines) + "\n"


def page(document: Document) -> str:
    """README.md beside the results: every table and picture."""
    lines = ["# Measured", "", _where(document, "this folder"), ""]
    lines += ["Written by `python -m benchmarks.readme`; [benchmarks/README.md](../../README.md) says what it means."]
    for table in tables.tables(document):
        lines += ["", f"## {table.title}", "", *table.markdown()]
    lines += ["", "## Summary", ""]
    lines += [f"- {line.with_aim()}" for line in summary.lines(document)]
    lines += _slower(document)
    if document["left_out"]:
        lines += ["", "Left out:", "", *(f"- {name}: {reason}" for name, reason in document["left_out"].items())]
    for name, part in figures.PARTS.items():
        if document[part]:
            lines += ["", f"![{_CAPTIONS[name]}]({name})"]
    return "\n".join(lines) + "\n"


def write(path: Path, readme: Path = PROJECT_README) -> None:
    """Replaces the marked part of the README, and the page and pictures beside the results.

    Raises:
        UserError: the file is no results.json, or the README has no such part, or several.
    """
    document = results.read(path)
    folder = os.path.relpath(path.resolve().parent, readme.resolve().parent)
    written = section(document, folder)
    text, count = MARKED.subn(lambda _: written, readme.read_text())
    if count != 1:
        raise UserError(
            f"{readme} has {count} parts between '<!-- measured -->' and '<!-- end of measured -->', expected 1"
        )
    readme.write_text(text)
    (path.parent / "README.md").write_text(page(document))
    figures.draw(document, path.parent, results.digest(path))


def _where(document: Document, folder: str) -> str:
    machine, speed = document["machine"], document["bandwidth_bytes_per_second"]
    device = machine.get("gpu", f"{machine['cores']} cores of {machine['cpu']} ({machine['isa']})")
    quick = " A quick look, not to be quoted." if document["settings"]["quick"] else ""
    sentence = (
        f"{device}, torch {machine['torch']}, vae_ext at {_short(machine['commit'])}; memory reads"
        f" {speed['read'] / 1e9:.0f} and copies {speed['copy'] / 1e9:.0f} GB/s. 20th percentiles, in µs, with the"
        f" allocator pinned (default: as it comes, and medians), from `make bench`; all of it is in"
        f" {'results.json' if folder == 'this folder' else f'[{folder}]({folder})'}.{quick}"
    )
    return textwrap.fill(sentence, 120, break_long_words=False, break_on_hyphens=False)


def _short(commit: str) -> str:
    """Still telling that the sources were not those of the commit."""
    name, *dirty = commit.split("-")
    return "-".join([name[:12], *dirty])


def _readme_table(document: Document) -> Iterator[str]:
    """float32, one sample: forward with backward, and what is often used without a gradient also forward."""
    shown = [
        row
        for row in document["operators"]
        if (row["dtype"], row["samples"]) == ("float32", 1)
        and (row["pass"] == "fwd+bwd" or row["operator"] in _FORWARD_TOO)
    ]
    if not shown:
        return
    default = any("default_allocator" in row for row in shown)
    yield "| operator | pass | shape | ours | eager | compile | × eager | × compile |" + (
        " default: × eager | × compile | memory |" if default else " memory |"
    )
    yield "|---|---|---|" + "---:|" * (8 if default else 6)
    for row in shown:
        timings, as_it_comes = row["timings"], row.get("default_allocator", {"timings": {}})["timings"]
        cells = [f"`{row['operator']}`", row["pass"], tables.shape(row)]
        times = (timings[name]["p20"] if name in timings else None for name in ("ours", "eager", "compile"))
        cells += ["" if time is None else tables.microseconds(time) for time in times]
        cells += [tables.ratio(timings, peer) for peer in ("eager", "compile")]
        if default:
            cells += [tables.ratio(as_it_comes, peer, percentile="median") for peer in ("eager", "compile")]
        cells.append(tables.bandwidth(row, document["settings"]["device"], tables.BEYOND_CACHES))
        yield f"| {' | '.join(cells)} |"


def _slower(document: Document) -> list[str]:
    lost = summary.losses(document)
    return ["", "Where ours is slower than a peer:", "", *(f"- {sentence}" for sentence in lost)] if lost else []


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m benchmarks.readme RESULTS.json")
    try:
        write(Path(sys.argv[1]))
    except UserError as error:
        sys.exit(f"benchmarks.readme: {error}")
