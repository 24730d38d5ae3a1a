"""The command `python -m benchmarks.paper`: runs what is missing of the paper's figures, and reports."""

from __future__ import annotations

import argparse
import functools
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from rich.console import Console

from benchmarks.paper import figures, marginal_curves, marginal_page, marginal_runs, page
from benchmarks.paper.curves import INIT, Curve, curves, read, read_all
from benchmarks.paper.marginal_curves import MarginalCurve
from benchmarks.paper.runs import run
from vae_ext import interrupts
from vae_ext.datasets import Dataset, load_dataset
from vae_ext.errors import UserError
from vae_ext.train_config import INITIALISATIONS

CURVES = "curves"
FIGURE_3 = "figure_3"

NamedCurve = TypeVar("NamedCurve", Curve, MarginalCurve)


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parse(arguments)
    console = Console(highlight=False, soft_wrap=True)
    try:
        _run(options, console)
    except UserError as error:
        sys.exit(f"benchmarks.paper: {error}")
    except KeyboardInterrupt:
        console.print("Stopped: the same command goes on from the last checkpoint")
        sys.exit(interrupts.STATUS)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.paper", description=(__doc__ or "").split(": ", 1)[1])
    parser.add_argument("--figure", type=int, choices=(2, 3), default=2, help="2, with figures 4 and 5; or 3")
    parser.add_argument("--samples", type=_samples, default=10**6, help="training samples of each curve, as in 1e6")
    parser.add_argument("--only", default="", help="curves whose names match, as in 'mnist-aevb-(3|10)$'")
    parser.add_argument("--init", choices=INITIALISATIONS, default=INIT, help="of the parameters")
    parser.add_argument(
        "--accumulate", action="store_true", help="in the first 100 steps only, as in the authors' code"
    )
    parser.add_argument("--step-size", type=float, help="of Adagrad, not the best of 0.01, 0.02 and 0.1 in trials")
    parser.add_argument("--seed", type=int, default=0, help="of the parameters, the minibatches and the noise")
    parser.add_argument("--mnist-dir", type=Path, help="of MNIST's four files, downloaded to your cache when not given")
    parser.add_argument("--frey-dir", type=Path, help="of frey_rawface.mat")
    parser.add_argument("--runs", type=Path, default=Path("runs/paper"), help="where runs have their folders")
    parser.add_argument("--out", type=Path, default=Path("runs/paper/results"), help="for curves, plots and tables")
    parser.add_argument("--report", action="store_true", help="run nothing: plots and tables of the curves in --out")
    return parser.parse_args(arguments)


def _samples(text: str) -> int:
    return int(float(text))


def _run(options: argparse.Namespace, console: Console) -> None:
    if options.figure == 3:
        _run_figure_3(options, console)
    else:
        _run_figure_2(options, console)


def _run_figure_2(options: argparse.Namespace, console: Console) -> None:
    if not options.report:
        _run_missing(options, console)
    learned = read_all(options.out / CURVES)
    if not learned:
        raise UserError(f"{options.out / CURVES} has no curves: run some first")
    figures.figure_2(learned, options.out)
    page.write(learned, options.out)
    console.print(f"Written to {options.out}")


def _run_missing(options: argparse.Namespace, console: Console) -> None:
    """Runs the curves that are not in `options.out` to as many samples yet."""
    named = _named(curves(options.init, options.accumulate, options.step_size, options.seed), options.only)
    load = functools.cache(lambda name: _load(name, options))
    configs = {curve: curve.config(options.samples) for curve in named}
    missing = [curve for curve in named if _samples_kept(curve, options.out / CURVES) < options.samples]
    for number, curve in enumerate(missing, 1):
        console.print(f"{number} of {len(missing)}: {curve.name}, {options.samples:,} samples")
        folder = options.runs / f"{curve.name}-{options.samples}"
        learned, trainer = run(curve, configs[curve], load(curve.dataset), folder, console)
        # The curve last: with it, all that it leaves is there.
        figures.of_model(curve, trainer, options.out)
        learned.write(options.out / CURVES)


def _run_figure_3(options: argparse.Namespace, console: Console) -> None:
    folder = options.out / FIGURE_3
    if not options.report:
        _run_missing_marginals(options, folder / CURVES, console)
    learned = marginal_curves.read_all(folder / CURVES)
    if not learned:
        raise UserError(f"{folder / CURVES} has no curves: run some first")
    marginal_page.write(learned, folder)
    console.print(f"Written to {folder}")


def _run_missing_marginals(options: argparse.Namespace, out: Path, console: Console) -> None:
    """Runs the curves of figure 3 that are not in `out` to as many samples yet."""
    if options.accumulate or options.step_size is not None:
        raise UserError("--accumulate and --step-size are for the curves of figure 2: leave them out")
    named = _named(marginal_curves.marginal_curves(options.init, options.seed), options.only)
    configs = {curve: curve.config(options.samples) for curve in named}
    missing = [curve for curve in named if marginal_curves.samples_kept(curve, out) < options.samples]
    mnist = _load("mnist", options)
    for number, curve in enumerate(missing, 1):
        console.print(f"{number} of {len(missing)}: {curve.name}, {options.samples:,} samples")
        folder = options.runs / FIGURE_3 / f"{curve.name}-{options.samples}"
        marginal_runs.run(curve, configs[curve], mnist, folder, out, console)


def _named(every: Iterable[NamedCurve], pattern: str) -> list[NamedCurve]:
    """The curves in whose names the pattern is found."""
    every = list(every)
    named = [curve for curve in every if re.search(pattern, curve.name)]
    if not named:
        raise UserError(f"--only {pattern} is found in none of {', '.join(curve.name for curve in every)}")
    return named


def _samples_kept(curve: Curve, folder: Path) -> int:
    """How far the curve in the folder goes."""
    path = folder / f"{curve.name}.json"
    return read(path).samples[-1] if path.exists() else 0


def _load(name: str, options: argparse.Namespace) -> Dataset:
    data_dir: Path | None = {"mnist": options.mnist_dir, "frey": options.frey_dir}[name]
    if name == "frey" and data_dir is None:
        raise UserError("the Frey faces are not downloaded: name their folder with --frey-dir, or give --only mnist")
    return load_dataset(name, data_dir)


if __name__ == "__main__":
    main()
