"""What the commands have in common: options, and how what they name is found."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vae_ext.errors import UserError
from vae_ext.train_config import ConfigError

if TYPE_CHECKING:
    import torch

    from vae_ext.aevb import Checkpoint, VAEConfig
    from vae_ext.datasets import Dataset


def parse_path(text: str) -> Path:
    if not text:
        raise typer.BadParameter("the path is empty")
    return Path(text)


def parse_log_var(text: str) -> str | float:
    """A number where it is one; `TrainConfig` judges the rest."""
    try:
        return float(text)
    except ValueError:
        return text


def parse_step_size(text: str) -> float | None:
    """None for auto."""
    try:
        return None if text == "auto" else float(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a valid step size: a number, or auto", param_hint="--lr") from None


def parse_numbers(field: str, text: str) -> tuple[int, ...]:
    """Of an option like 1,2,5. Raises ConfigError for anything but positive integers."""
    try:
        numbers = tuple(int(number) for number in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or min(numbers) < 1 or max(numbers) >= 2**31:
        raise ConfigError(field, f"is {text!r}: expected positive integers, such as 1,2,5")
    return numbers


DatasetOption = Annotated[str, typer.Option(help="digits, mnist, frey, or npy:PATH, an array [N, ...].")]
DataDirOption = Annotated[
    Path | None,
    typer.Option(
        help="The folder of MNIST's four IDX files, downloaded to your cache when not given; or of frey_rawface.mat.",
        parser=parse_path,
    ),
]
DeviceOption = Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")]
RunArgument = Annotated[
    Path,
    typer.Argument(metavar="RUN", help="The folder of a run of `vae-ext train`, or a checkpoint.", parser=parse_path),
]
TrainedOnOption = Annotated[
    str | None, typer.Option("--dataset", help="The dataset it was trained on when not given.", show_default=False)
]

OutOption = Annotated[
    Path | None,
    typer.Option(help="The folder to write to; the checkpoint's own when not given.", parser=parse_path),
]
SeedOption = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Of what is drawn.")]
Part = Literal["test", "train"]
PartOption = Annotated[Part, typer.Option(help="Which datapoints: held-out ones, or those for training.")]


def find_checkpoint(run: Path) -> Path:
    """The checkpoint in the folder of a run, or the one that is named itself."""
    from vae_ext.aevb.run_directory import CHECKPOINT

    return run / CHECKPOINT if run.is_dir() else run


def config_of(loaded: Checkpoint) -> VAEConfig:
    config = loaded.model.config
    assert config is not None  # or it could not have been built
    return config


def resolve_device(name: str) -> torch.device:
    """Raises UserError where there is no such device, or no code for it."""
    import torch

    from vae_ext import _native
    from vae_ext.aevb.distributed import local_rank

    try:
        device = torch.device(f"cuda:{local_rank()}" if name == "cuda" else name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"unknown device {name!r}: expected cpu, cuda or cuda:N")
    if device.type == "cuda" and _native.load().build_info()["cuda"] is None:
        raise UserError(
            f"--device {name}: vae_ext was built without CUDA: use --device cpu, or rebuild it with BUILD_CUDA=1"
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"--device {name}: torch sees {torch.cuda.device_count()} GPUs: use --device cpu")
    return device


def load_dataset_for(checkpoint: Path, loaded: Checkpoint, name: str | None, data_dir: Path | None) -> Dataset:
    """The dataset of that name, or else that of the checkpoint, whose model must fit it."""
    from vae_ext.aevb.compatibility import check_range
    from vae_ext.datasets import load_dataset

    if name is None and data_dir is None and loaded.options.data_dir is not None:
        data_dir = Path(loaded.options.data_dir)
    try:
        data = load_dataset(name if name is not None else loaded.dataset, data_dir)
    except UserError as error:
        moved = loaded.dataset.startswith("npy:") and not Path(loaded.dataset.removeprefix("npy:")).exists()
        if name is not None or not moved:
            raise
        raise UserError(f"{error}: {checkpoint} was trained on it, say where it is now with --dataset") from error
    config = config_of(loaded)
    if data.data_dim != config.data_dim:
        raise UserError(
            f"{checkpoint} is a model of {config.data_dim} values a datapoint, but {data.name} has"
            f" {data.data_dim}: give --dataset what it was trained on, which was {loaded.dataset}"
        )
    check_range(config, data)
    return data
