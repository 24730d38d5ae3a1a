"""The command `python -m benchmarks.readme RESULTS.json`: all that is written and drawn from a results.json.

The measured part of the project's README; and beside the file README.md, with every table, and the pictures.
"""

from __future__ import annotations

import os
import re
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks import figures, groups, losses, overview, results, summary, tables
from benchmarks.results import Document
from benchmarks.tables import Table
from vae_ext.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
PROJECT_README = ROOT / "README.md"
# What stands between the two is written by this command.
MARKED = re.compile(r"(?<=<!-- measured -->\n).*?(?=<!-- end of measured -->)", re.DOTALL)

_CAPTIONS = {
    "speed.png": "How many times as fast as eager PyTorch and torch.compile every operator is",
    "training.png": "Samples per second and peak memory of whole training steps",
    "scaling.png": "How time grows with batch, event and samples, and what a second thread gains",
    "accuracy.png": "Errors against float64",
}


def section(document: Document, folder: str) -> str:
    """The measured part of the project's README, for results that are in `folder`, seen from there."""
    lines = [_where(document, f"every row is in [{folder}]({folder})")]
    lines += _picture(document, "speed.png", f"{folder}/")
    lines += _written([overview.operators(document), groups.speeds(document["operators"])], level="###")
    lines += _written([overview.training(document["training"])], level="###")
    lines += _picture(document, "training.png", f"{folder}/")
    lines += _written([summary.table(document), losses.slower(document)], level="###")
    for name in ("scaling.png", "accuracy.png"):
        lines += _picture(document, name, f"{folder}/")
    return "\n".join(lines) + "\n"


def page(document: Document) -> str:
    """README.md beside the results: every table and picture."""
    lines = ["# Measured", "", _where(document, "all samples are in results.json"), ""]
    lines += ["Written by `python -m benchmarks.readme`; [benchmarks/README.md](../../README.md) says what it means."]
    lines += _written([summary.table(document), *groups.tables(document), *losses.tables(document)])
    for name in figures.PARTS:
        lines += _picture(document, name)
    lines += _written(tables.tables(document))
    if document["left_out"]:
        lines += ["", "## Left out", "", *(f"- {name}: {reason}" for name, reason in document["left_out"].items())]
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


def _written(made: Sequence[Table], level: str = "##") -> Iterator[str]:
    for table in made:
        if table.rows:
            yield from ("", f"{level} {table.title}", "", *table.markdown())


def _picture(document: Document, name: str, folder: str = "") -> list[str]:
    """Nothing where it was not drawn."""
    return ["", f"![{_CAPTIONS[name]}]({folder}{name})"] if document[figures.PARTS[name]] else []


def _where(document: Document, rest: str) -> str:
    machine, speed = document["machine"], document["bandwidth_bytes_per_second"]
    device = machine.get("gpu", f"{machine['cores']} cores of {machine['cpu']} ({machine['isa']})")
    virtual = " of a virtual machine" if machine.get("virtual") else ""
    quick = " A quick look, not to be quoted." if document["settings"]["quick"] else ""
    rows = document["operators"]
    spread = f"; of {summary.widely_spread(rows)} of {len(rows)} rows of operators p80 is beyond {summary.WIDE} × p20"
    sentence = (
        f"{device}{virtual}, torch {machine['torch']}, vae_ext at {_short(machine['commit'])}; memory reads"
        f" {speed['read'] / 1e9:.0f} and copies {speed['copy'] / 1e9:.0f} GB/s, and others kept"
        f" {document['cores_busy_with_others']:.2f} cores busy meanwhile. Each row is of one run of `make bench`"
        f"{spread if rows else ''}. 20th percentiles, in µs, with the allocator pinned (default: as it comes, and"
        f" medians); {rest}.{quick}"
    )
    return textwrap.fill(sentence, 120, break_long_words=False, break_on_hyphens=False)


def _short(commit: str) -> str:
    """Still telling that the sources were not those of the commit."""
    name, *dirty = commit.split("-")
    return "-".join([name[:12], *dirty])


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m benchmarks.readme RESULTS.json")
    try:
        write(Path(sys.argv[1]))
    except UserError as error:
        sys.exit(f"benchmarks.readme: {error}")
