"""The report of the curves there are: README.md and differences.json, and what both are made of."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.paper import published
from benchmarks.paper.curves import LearnedCurve
from benchmarks.paper.differences import Contest, Difference, Spread, contests, differences, spreads
from vae_ext.plots import typeset

PAGE, NUMBERS = "README.md", "differences.json"
# Pictures that the page shows where they are there, with their captions.
CAPTIONS = {
    "figure_2": "The lower bound against training samples, with the points read off the paper's figure 2",
    "figure_4": "Figure 4: the learned manifold",
    "figure_5": "Figure 5: samples",
}
_WIDTH = 120
_INTRODUCTION = (
    "Written by `python -m benchmarks.paper`; [the page above](../README.md) says how. Bounds are mean nats per"
    " datapoint, of one run each; between two records a bound is linear in the logarithm of the samples. Bounds of"
    " training are means over the minibatches since the record before."
)


def write(learned: Sequence[LearnedCurve], folder: Path) -> None:
    """Writes both files, for the pictures that are in the folder."""
    rows, pairs = differences(learned), contests(learned)
    seeds = spreads(rows, learned)
    document = {
        "source": published.SOURCE,
        "uncertainty_nats": published.UNCERTAINTY,
        "ran": [_ran(one) for one in learned],
        "differences": [asdict(row) | {"met": row.met} for row in rows],
        "seeds": [asdict(spread) | {"mean": round(spread.mean, 3)} for spread in seeds],
        "contests": [asdict(pair) | {"lead": pair.lead} for pair in pairs],
    }
    (folder / NUMBERS).write_text(dump(document))
    (folder / PAGE).write_text("\n".join(_page(learned, rows, seeds, pairs, folder)) + "\n")


def _ran(one: LearnedCurve) -> Mapping[str, object]:
    return {
        "curve": one.curve.name,
        "samples": one.samples[-1],
        "step_size": one.config.lr,
        "seconds": one.seconds,
        "seed": one.config.seed,
        **one.setting,
    }


def dump(document: Mapping[str, object]) -> str:
    """As JSON, each row on a line."""
    entries = (f"{json.dumps(name)}: {_rows(value)}" for name, value in document.items())
    return "{\n" + ",\n".join(entries) + "\n}\n"


def _rows(value: object) -> str:
    if not isinstance(value, list):
        return json.dumps(value)
    return "[\n" + ",\n".join(json.dumps(row) for row in value) + "\n]"


def _page(
    learned: Sequence[LearnedCurve],
    rows: Sequence[Difference],
    seeds: Sequence[Spread],
    pairs: Sequence[Contest],
    folder: Path,
) -> Iterator[str]:
    yield from ("# The paper's figures, reproduced", "", *textwrap.wrap(_INTRODUCTION, _WIDTH), "")
    yield from (f"- {line}" for line in _summary(rows, pairs))
    yield from ("", "## Against the paper", "", *textwrap.wrap(published.SOURCE, _WIDTH), "")
    yield from table(
        ("curve", "samples", "test", "paper", "difference", "aim", "train", "paper", "difference"),
        1,
        (_against_the_paper(row) for row in rows),
    )
    if seeds:
        yield from ("", "## What a seed is worth, with the step size that is chosen for it, test", "")
        yield from table(
            ("curve", "step sizes", "samples", "lowest", "mean", "highest", "paper", "mean less paper"),
            2,
            map(_spread, seeds),
        )
    if pairs:
        yield from ("", "## AEVB against wake-sleep, test", "")
        yield from table(
            ("data", "latents", "variant", "samples", "AEVB", "wake-sleep", "AEVB leads by"),
            3,
            (_against_each_other(pair) for pair in pairs),
        )
    yield from ("", "## What was run", "")
    yield from table(("curve", "samples", "step size", "trials (training bound)", "seconds"), 1, map(_run, learned))
    yield from ("", *textwrap.wrap(_settings(learned), _WIDTH))
    for stem, caption in CAPTIONS.items():
        for picture in sorted(folder.glob(f"{stem}*.png"), key=lambda path: (len(path.name), path.name)):
            yield from ("", f"![{caption}]({picture.name})")


def _summary(rows: Sequence[Difference], pairs: Sequence[Contest]) -> Iterator[str]:
    aimed = [row for row in rows if row.met is not None]
    groups = {
        "of the figure's curves": [row for row in aimed if not row.variant],
        "of other seeds": [row for row in aimed if row.variant == f"-seed-{row.seed}"],
        "of other settings": [row for row in aimed if row.variant and row.variant != f"-seed-{row.seed}"],
    }
    counts = ", ".join(f"{_met(group)} of {len(group)} {name}" for name, group in groups.items() if group)
    yield f"Test bounds as near to the paper's as was aimed at: {counts}."
    ahead = sum(pair.lead > 0 for pair in pairs)
    yield f"AEVB above wake-sleep at equal samples: {ahead} of {len(pairs)}."


def _met(rows: Sequence[Difference]) -> int:
    return sum(row.met is True for row in rows)


def _spread(spread: Spread) -> Iterator[str]:
    yield from (spread.curve, ", ".join(f"{size:g}" for size in spread.step_sizes), short(spread.samples))
    yield from (typeset(value, 1) for value in (spread.bounds[0], spread.mean, spread.bounds[-1]))
    yield from (_number(spread.paper), "" if spread.paper is None else signed(spread.mean - spread.paper))


def _against_the_paper(row: Difference) -> Iterator[str]:
    yield from (row.curve, short(row.samples), typeset(row.test, 1))
    yield from (_number(row.paper_test), signed(row.test_minus_paper))
    yield "" if row.met is None else f"±{row.aim:g}: {'met' if row.met else 'missed'}"
    yield from (typeset(row.train, 1), _number(row.paper_train), signed(row.train_minus_paper))


def _against_each_other(pair: Contest) -> Iterator[str]:
    yield from (pair.dataset, str(pair.latent), pair.variant.removeprefix("-"), short(pair.samples))
    yield from (typeset(pair.aevb, 1), typeset(pair.wake_sleep, 1), signed(pair.lead))


def _run(one: LearnedCurve) -> Iterator[str]:
    trials = ", ".join(f"{lr}: {typeset(bound, 1)}" for lr, bound in one.step_sizes.items())
    yield from (one.curve.name, f"{one.samples[-1]:,}", f"{one.config.lr:g}", trials, f"{one.seconds:,.0f}")


def _settings(learned: Sequence[LearnedCurve]) -> str:
    """What all curves of a dataset have in common."""
    sentences = []
    for dataset in dict.fromkeys(one.curve.dataset for one in learned):
        config, setting = next((one.config, one.setting) for one in learned if one.curve.dataset == dataset)
        sentences.append(
            f"{dataset}: {setting['train_datapoints']:,} training and {setting['test_datapoints']:,} test datapoints,"
            f" {config.likelihood} likelihood, {config.hidden} hidden units, M = {config.batch_size},"
            f" L = {config.draws}, {config.optimizer}, initialisation {config.init} (or as a curve's name says),"
            f" {config.precision}, on {setting['threads']} thread(s), torch {setting['torch']}."
        )
    return " ".join(sentences)


def table(headings: Sequence[str], words: int, rows: Iterable[Iterable[str]]) -> Iterator[str]:
    """The first `words` columns are words, the others numbers."""
    yield f"| {' | '.join(headings)} |"
    yield "|" + "---|" * words + "---:|" * (len(headings) - words)
    for row in rows:
        yield f"| {' | '.join(row)} |"


def short(samples: int) -> str:
    """100,000 as 1e5."""
    return f"{samples:.0e}".replace("e+0", "e")


def _number(value: float | None) -> str:
    return "" if value is None else typeset(value, 1)


def signed(value: float | None) -> str:
    if value is None:
        return ""
    return f"+{value:.1f}" if value > 0 else typeset(value, 1)
