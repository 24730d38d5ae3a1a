"""Mean squared errors of `vae-ext denoise`, `inpaint` and `upscale`, by both methods: the tables of `inference`.

python -m benchmarks.observed runs/digits --count 297 --out benchmarks/inference
python -m benchmarks.observed runs/mnist --count 200 --out benchmarks/inference
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vae_ext.aevb import load_checkpoint
from vae_ext.aevb.run_directory import CHECKPOINT
from vae_ext.errors import UserError
from vae_ext.files import write_atomically
from vae_ext.observed_commands import METHOD_NAMES, denoise, inpaint, upscale

COMMANDS: dict[str, Callable[..., None]] = {"denoise": denoise, "inpaint": inpaint, "upscale": upscale}
TASKS: dict[str, tuple[tuple[str, Mapping[str, Any]], ...]] = {
    "digits": (
        ("denoise", {}),
        ("denoise", {"noise": "salt-and-pepper"}),
        ("denoise", {"noise": "flips", "level": 0.2}),
        ("inpaint", {}),
        ("inpaint", {"hide": "centre", "share": 0.25}),
        ("upscale", {}),
        ("upscale", {"factor": 4}),
    ),
    "mnist": (
        ("denoise", {}),
        ("denoise", {"noise": "salt-and-pepper", "level": 0.5}),
        ("inpaint", {}),
        ("inpaint", {"hide": "centre", "share": 0.25}),
        ("inpaint", {"hide": "scattered", "share": 0.8}),
        ("upscale", {"factor": 4}),
    ),
}


def measure(run: Path, tasks: Sequence[tuple[str, Mapping[str, Any]]], count: int) -> Iterator[dict[str, Any]]:
    """A row for each task: the errors of encoder and decoder alone, and of either method."""
    for command, options in tasks:
        name = " ".join([command, *(f"--{option} {value}" for option, value in options.items())])
        errors: dict[str, float] = {}
        for method in METHOD_NAMES:
            errors |= _errors(run, command, {**options, "method": method, "count": count})
        yield {"command": name, "datapoints": count, **errors}


def _errors(run: Path, command: str, options: Mapping[str, Any]) -> dict[str, float]:
    """Of what the command wrote: where a part was hidden, of that."""
    with tempfile.TemporaryDirectory() as folder:
        COMMANDS[command](run, out=Path(folder), **options)
        (path,) = Path(folder).glob("*.npz")
        with np.load(path) as arrays:
            x = arrays["x"].astype(np.float64)
            where = np.broadcast_to(arrays["hidden"], x.shape) if "hidden" in arrays else np.ones(x.shape, bool)
            names = {"baseline": "baseline", "mean": options["method"]}
            return {names[key]: round(float(((arrays[key] - x)[where] ** 2).mean()), 5) for key in names}


def table(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield "| command | encoder, decoder | gradient | hmc |"
    yield "|---|---:|---:|---:|"
    for row in rows:
        errors = (f"{row[name]:.4f}" for name in ("baseline", *METHOD_NAMES))
        yield f"| `{row['command']}` | {' | '.join(errors)} |"


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parse(arguments)
    try:
        _run(options)
    except UserError as error:
        sys.exit(f"benchmarks.observed: {error}")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.observed", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("run", type=Path, help="of `vae-ext train`, on the digits or on MNIST")
    parser.add_argument("--count", type=int, default=200, help="held-out datapoints, from the first (default 200)")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="the folder of observed-*.json (default runs)")
    return parser.parse_args(arguments)


def _run(options: argparse.Namespace) -> None:
    saved = load_checkpoint(options.run / CHECKPOINT)
    dataset = saved.options.dataset
    if dataset not in TASKS:
        raise UserError(f"{options.run} is of dataset {dataset}: the tables are of {' and '.join(TASKS)}")
    path = options.out / f"observed-{dataset}.json"
    errors = list(measure(options.run, TASKS[dataset], options.count))
    text = json.dumps({"dataset": dataset, "config": vars(saved.config), "errors": errors}, indent=1) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))
    print("\n".join(table(errors)))


if __name__ == "__main__":
    main()
