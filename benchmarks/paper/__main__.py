"""The command `python -m benchmarks.paper`: runs what is missing of the paper's figures, and reports."""

from __future__ import annotations

import argparse
import functools
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from benchmarks.paper import figures, page
from benchmarks.paper.curves import Curve, curves, read, read_all
from benchmarks.paper.runs import run
from vae_ext import interrupts
from vae_ext.datasets import Dataset, load_dataset
from vae_ext.errors import UserError
from vae_ext.train_config import INITIALISATIONS, TrainConfig


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
    parser.add_argument("--samples", type=_samples, default=10**6, help="training samples of each curve, as in 1e6")
    parser.add_argument("--only", default="", help="curves whose names match, as in 'mnist-aevb-(3|10)$'")
    parser.add_argument("--init", choices=INITIALISATIONS, default=TrainConfig.init, help="of the parameters")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--mnist-dir", type=Path, help="of MNIST's four files, downloaded to your cache when not given")
    parser.add_argument("--frey-dir", type=Path, help="of frey_rawface.mat")
    parser.add_argument("--runs", type=Path, default=Path("runs/paper"), help="where runs have their folders")
    parser.add_argument("--out", type=Path, default=Path("runs/paper/results"), help="for curves, plots and tables")
    parser.add_argument("--list", action="store_true", help="only list the curves and what there is of them")
    return parser.parse_args(arguments)


def _samples(text: str) -> int:
    return int(float(text))


def _run(options: argparse.Namespace, console: Console) -> None:
    chosen = [curve for curve in curves(options.init) if re.search(options.only, curve.name)]
    if not chosen:
        raise UserError(f"--only {options.only} is found in the name of no curve: --list names them")
    kept = options.out / "curves"
    missing = [curve for curve in chosen if _samples_kept(curve, kept) < options.samples]
    if options.list:
        for curve in chosen:
            console.print(f"{curve.name}: {_samples_kept(curve, kept):,} samples")
        return
    load = functools.cache(lambda name: _load(name, options))
    for number, curve in enumerate(missing, 1):
        console.print(f"{number} of {len(missing)}: {curve.name}, {options.samples:,} samples")
        folder = options.runs / f"{curve.name}-{options.samples}"
        learned, trainer = run(curve, curve.config(options.samples, options.seed), load(curve.dataset), folder, console)
        learned.write(kept)
        figures.of_model(curve, trainer, options.out)
    learned_curves = read_all(kept)
    figures.figure_2(learned_curves, options.out)
    page.write(learned_curves, options.out)
    console.print(f"Written to {options.out}")


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
