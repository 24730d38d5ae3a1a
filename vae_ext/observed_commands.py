"""The commands that infer what was not seen: denoise, inpaint, upscale.

Each spoils held-out datapoints, infers them from what is left by a trained model, and says how far off it is, beside
the encoder and decoder alone.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vae_ext import results
from vae_ext.errors import UserError
from vae_ext.options import (
    DataDirOption,
    DeviceOption,
    OutOption,
    Part,
    PartOption,
    RunArgument,
    SeedOption,
    TrainedOnOption,
    parse_path,
)
from vae_ext.train_config import ConfigError
from vae_ext.trained_model import TrainedModel

if TYPE_CHECKING:
    from torch import Tensor

    from vae_ext.aevb.observations import Observation
    from vae_ext.datasets import Dataset

app = typer.Typer()

CountOption = Annotated[
    int, typer.Option(min=1, max=10**5, help="How many datapoints, from the first; the picture has room for 16.")
]
Method = Literal["gradient", "hmc"]
MethodOption = Annotated[
    Method,
    typer.Option(help="How z is inferred: the best Gaussian, by gradients, or Hamiltonian Monte Carlo; slower."),
]
SamplesOption = Annotated[int, typer.Option("--draws", min=2, max=10**4, help="Of z given what was seen.")]
METHOD_NAMES: dict[Method, str] = {"gradient": "gradients", "hmc": "HMC"}
Noise = Literal["gaussian", "flips", "salt-and-pepper"]
LEVELS: dict[Noise, float] = {"gaussian": 0.4, "flips": 0.1, "salt-and-pepper": 0.4}
Hide = Literal["bottom", "top", "left", "right", "centre", "scattered"]


@app.command()
def denoise(
    run: RunArgument,
    out: OutOption = None,
    noise: Annotated[
        Noise,
        typer.Option(
            help="gaussian is added to every value; flips turn bits over and salt-and-pepper replaces values by 0 or 1,"
            " both of a Bernoulli model."
        ),
    ] = "gaussian",
    level: Annotated[
        float | None,
        typer.Option(
            help="Its standard deviation, 0.4 when not given; or the probability that a value is hit, 0.1 of flips and"
            " 0.4 of salt-and-pepper.",
            show_default=False,
        ),
    ] = None,
    method: MethodOption = "gradient",
    count: CountOption = 16,
    draws: SamplesOption = 200,
    seed: SeedOption = 0,
    part: PartOption = "test",
    dataset: TrainedOnOption = None,
    data_dir: DataDirOption = None,
    device: DeviceOption = "cpu",
) -> None:
    """Add noise to datapoints and infer what was there: denoised.npz and denoised.png."""
    from vae_ext.aevb import observations

    kinds: dict[Noise, Callable[[float], Observation]] = {
        "gaussian": observations.GaussianNoise,
        "flips": observations.BitFlips,
        "salt-and-pepper": observations.SaltAndPepper,
    }
    titles: dict[Noise, str] = {
        "gaussian": "Gaussian noise of standard deviation",
        "flips": "bits flipped with probability",
        "salt-and-pepper": "values replaced by 0 or 1 with probability",
    }
    task = _Task(run, out, device, part, dataset, data_dir)
    level = LEVELS[noise] if level is None else level
    try:
        observation = kinds[noise](level)
    except ValueError as error:
        raise ConfigError("level", f"of {noise} noise: {error}") from error
    title = f"Denoising {task.name}: {titles[noise]} {level:g}"
    task.infer(results.DENOISED, title, observation, method, count, draws, seed)


@app.command()
def inpaint(
    run: RunArgument,
    out: OutOption = None,
    hide: Annotated[
        Hide | None,
        typer.Option(
            help="Where pictures are hidden, bottom when not given; scattered goes for all data.", show_default=False
        ),
    ] = None,
    share: Annotated[
        float | None,
        typer.Option(help="How much is hidden, between 0 and 1; half when not given.", show_default=False),
    ] = None,
    mask: Annotated[
        Path | None,
        typer.Option(
            help="In their place an .npy file: an array of bool, of the shape of a datapoint, True what is visible.",
            parser=parse_path,
            show_default=False,
        ),
    ] = None,
    method: MethodOption = "gradient",
    count: CountOption = 16,
    draws: SamplesOption = 200,
    seed: SeedOption = 0,
    part: PartOption = "test",
    dataset: TrainedOnOption = None,
    data_dir: DataDirOption = None,
    device: DeviceOption = "cpu",
) -> None:
    """Hide a part of datapoints, the same of all, and infer it from the rest: inpainted.npz and inpainted.png."""
    for name, value in (("hide", hide), ("share", share)):
        if mask is not None and value is not None:
            raise ConfigError(name, f"is {value}, but --mask says what is hidden: leave one of them out")
    import torch

    from vae_ext.aevb.observations import Visible

    task = _Task(run, out, device, part, dataset, data_dir)
    shape = task.trained.config.event_shape
    if mask is None:
        visible = _mask_of(hide or "bottom", 0.5 if share is None else share, shape, seed)
    else:
        visible = _read_mask(mask, shape)
    mean = task.data.train.mean(0, dtype=torch.float32) / task.data.scale
    try:
        observation = Visible(visible.to(mean.device), mean)
    except ValueError as error:
        raise UserError(f"nothing would be visible: {error}") from error
    if observation.mask.all():
        raise UserError("nothing would be hidden: give a larger --share, or a --mask that is False somewhere")
    where = "by a mask" if mask is not None else f"({hide or 'bottom'})"
    title = f"Inpainting {task.name}: {(~visible).double().mean():.0%} hidden {where}"
    task.infer(results.INPAINTED, title, observation, method, count, draws, seed, hidden=~observation.mask)


@app.command()
def upscale(
    run: RunArgument,
    out: OutOption = None,
    factor: Annotated[int, typer.Option(help="How many times smaller the pictures are made.")] = 2,
    error: Annotated[
        float, typer.Option(help="The standard deviation of the error that small pixels are believed to have.")
    ] = 0.05,
    method: MethodOption = "gradient",
    count: CountOption = 16,
    draws: SamplesOption = 200,
    seed: SeedOption = 0,
    part: PartOption = "test",
    dataset: TrainedOnOption = None,
    data_dir: DataDirOption = None,
    device: DeviceOption = "cpu",
) -> None:
    """Make pictures smaller and infer what they were: upscaled.npz and upscaled.png."""
    from vae_ext.aevb.observations import BlockMeans

    task = _Task(run, out, device, part, dataset, data_dir)
    try:
        observation = BlockMeans(task.trained.config.event_shape, factor, error)
    except ValueError as fault:
        raise UserError(str(fault)) from fault
    title = f"Upscaling {task.name}: from pictures {factor} times smaller"
    task.infer(
        results.UPSCALED, title, observation, method, count, draws, seed, observed_shape=observation.observed_shape
    )


class _Task:
    """What the three have in common: a trained model, datapoints, and where the results go."""

    def __init__(
        self, run: Path, out: Path | None, device: str, part: Part, dataset: str | None, data_dir: Path | None
    ) -> None:
        self.trained = TrainedModel(run, out, device)
        self.data: Dataset = self.trained.load_dataset(dataset, data_dir)
        self.rows = self.trained.rows(self.data, part)

    @property
    def name(self) -> str:
        """Of the dataset, for a title."""
        from vae_ext.plots import title_of

        return title_of(self.data.name)

    def infer(
        self,
        stem: str,
        title: str,
        observation: Observation,
        method: Method,
        count: int,
        draws: int,
        seed: int,
        hidden: Tensor | None = None,
        observed_shape: tuple[int, ...] | None = None,
    ) -> None:
        """Spoils the first `count` datapoints, infers them, writes both, under that title, and says what came."""
        import torch

        from vae_ext import pictures
        from vae_ext.aevb.observed import METHODS, infer

        x = self.data.decode(self.rows[:count])
        y = observation.observe(x, torch.Generator().manual_seed(seed))
        generator = torch.Generator(x.device).manual_seed(seed)
        try:
            inferred = infer(
                self.trained.model, observation, y, METHODS[method], num_samples=draws, generator=generator
            )
        except (TypeError, ValueError) as error:
            raise UserError(str(error)) from error
        seen = inferred.guess if hidden is None else y.masked_fill(hidden, torch.nan)
        shaped = self.trained.shaped
        written = self.trained.save(
            stem,
            {
                "x": shaped(x),
                "observed": shaped(y) if observed_shape is None else y.unflatten(-1, observed_shape),
                **({} if hidden is None else {"hidden": shaped(hidden)}),
                "baseline": shaped(inferred.baseline),
                "mean": shaped(inferred.mean),
                "std": shaped(inferred.std),
                "z": inferred.z,
            },
            lambda path: pictures.inferred(
                inferred, x, seen, self.trained.config.event_shape, title, METHOD_NAMES[method], path
            ),
        )
        where = slice(None) if hidden is None else hidden
        baseline, ours = ((each - x)[:, where].square().mean() for each in (inferred.baseline, inferred.mean))
        what = "" if hidden is None else " of what was hidden"
        typer.echo(
            f"{len(x):,} datapoints, mean squared error{what} {ours:.4f}, {ours / baseline:.0%} of that of encoder and"
            f" decoder alone ({baseline:.4f}). {written}"
        )


def _mask_of(hide: Hide, share: float, event_shape: tuple[int, ...], seed: int) -> Tensor:
    """True where a value stays visible, `event_shape`; colours go together."""
    import torch

    if not 0 < share < 1:
        raise ConfigError("share", f"is {share}: expected a number between 0 and 1")
    if hide == "scattered":
        pixels = event_shape[:2]
        uniform = torch.rand(pixels, generator=torch.Generator().manual_seed(seed))
        return _over_colours(uniform >= share, event_shape)
    if len(event_shape) < 2:
        raise ConfigError("hide", f"is {hide}, but a datapoint has shape {list(event_shape)}: expected scattered")
    height, width = event_shape[:2]
    visible = torch.ones(height, width, dtype=torch.bool)
    rows, columns = round(share * height), round(share * width)
    if hide == "centre":
        side = share**0.5
        rows, columns = round(side * height), round(side * width)
        top, left = (height - rows) // 2, (width - columns) // 2
        visible[top : top + rows, left : left + columns] = False
    elif hide in ("top", "bottom"):
        visible[slice(rows) if hide == "top" else slice(height - rows, None)] = False
    else:
        visible[:, slice(columns) if hide == "left" else slice(width - columns, None)] = False
    return _over_colours(visible, event_shape)


def _over_colours(visible: Tensor, event_shape: tuple[int, ...]) -> Tensor:
    missing = len(event_shape) - visible.ndim
    return visible.reshape(*visible.shape, *[1] * missing).expand(event_shape)


def _read_mask(path: Path, event_shape: tuple[int, ...]) -> Tensor:
    import numpy as np
    import torch

    from vae_ext.datasets import read_npy

    array = read_npy(path)
    if array.dtype != np.bool_ or array.shape != event_shape:
        raise UserError(
            f"{path} holds {array.dtype} of shape {list(array.shape)}: expected bool of {list(event_shape)}, the shape"
            " of a datapoint"
        )
    return torch.from_numpy(array)
