"""The command `python -m benchmarks.operators`: the fused operators against eager PyTorch and torch.compile."""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.allocator import Allocator, restart_with


class Device(str, Enum):
    """Where to measure."""

    cpu = "cpu"
    cuda = "cuda"


class Dtype(str, Enum):
    """The dtypes of the operators."""

    float32 = "float32"
    float64 = "float64"
    bfloat16 = "bfloat16"
    float16 = "float16"


def main(
    only: Annotated[
        str, typer.Option(help="Measure where this regular expression is found, as in 'kl fwd .*64'.")
    ] = "",
    quick: Annotated[bool, typer.Option("--quick", help="A short look; not to be quoted.")] = False,
    threads: Annotated[
        int | None, typer.Option(min=1, help="As many as torch uses when not given.", show_default=False)
    ] = None,
    device: Annotated[Device, typer.Option(help="The CUDA suite has other shapes.")] = Device.cpu,
    dtype: Annotated[Dtype, typer.Option(help="Of the parameters and the data.")] = Dtype.float32,
    allocator: Annotated[
        Allocator, typer.Option(help="Keep freed memory (pinned), or as it comes.")
    ] = Allocator.pinned,
    force: Annotated[bool, typer.Option("--force", help="Measure on a busy machine too.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="A folder to write results.json and pictures to.", show_default=False)
    ] = None,
) -> None:
    """Measure the fused operators against eager PyTorch and torch.compile; see benchmarks/README.md."""
    restart_with(allocator)
    from benchmarks import session
    from vae_ext.errors import UserError

    options = session.Options(only, quick, threads, device.value, dtype.value, allocator.value, force, out)
    try:
        session.run(options)
    except (UserError, ImportError) as error:
        sys.exit(f"benchmarks: {error}")
    except OSError as error:
        sys.exit(f"benchmarks: cannot use {error.filename}: {error.strerror}")


if __name__ == "__main__":
    typer.run(main)
