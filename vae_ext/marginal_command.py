"""The command `vae-ext marginal`: log p(x) of datapoints under a trained model."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vae_ext.errors import UserError
from vae_ext.options import (
    DataDirOption,
    DeviceOption,
    OutOption,
    PartOption,
    RunArgument,
    SeedOption,
    TrainedOnOption,
)
from vae_ext.results import MARGINAL_HMC, MARGINAL_IMPORTANCE
from vae_ext.train_config import ConfigError
from vae_ext.trained_model import TrainedModel

if TYPE_CHECKING:
    from torch import Tensor

    from vae_ext.aevb.marginal import MarginalEstimate
    from vae_ext.aevb.mixing import Mixing

app = typer.Typer()

Method = Literal["importance", "hmc"]
DRAWS = {"importance": 5000, "hmc": 200}
FILES = {"importance": MARGINAL_IMPORTANCE, "hmc": MARGINAL_HMC}
CHAINS = {"burn_in": 100, "leapfrog_steps": 4}
NAMES = {"importance": "importance sampling", "hmc": "appendix D's estimator on draws of HMC"}
# Datapoints at once: as many as chains are worth running together, and a chunk of draws of each stays in the caches.
BATCH = {"importance": 100, "hmc": 500}
# Below it an estimate is decided by a few draws, and its standard error says little.
FEWEST_EFFECTIVE = 10


@app.command()
def marginal(
    run: RunArgument,
    out: OutOption = None,
    method: Annotated[
        Method, typer.Option(help="Importance sampling, or, of up to 5 latents, HMC and a density fitted to its draws.")
    ] = "importance",
    draws: Annotated[
        int | None,
        typer.Option(
            min=2,
            max=10**7,
            help="Of z for each datapoint; 5000, or 200 of HMC, when not given.",
            show_default=False,
        ),
    ] = None,
    burn_in: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=10**6,
            help="Of HMC: transitions before the first draw; 100 when not given.",
            show_default=False,
        ),
    ] = None,
    leapfrog_steps: Annotated[
        int | None,
        typer.Option(min=1, max=10**4, help="Of HMC: of each transition; 4 when not given.", show_default=False),
    ] = None,
    count: Annotated[int, typer.Option(min=1, max=10**7, help="How many datapoints, from the first.")] = 1000,
    part: PartOption = "test",
    seed: SeedOption = 0,
    dataset: TrainedOnOption = None,
    data_dir: DataDirOption = None,
    device: DeviceOption = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Estimate log p(x), and sum up: log_marginal, standard_error, effective_sample_size.

    They are in marginal_importance.npz, or marginal_hmc.npz, where they are NaN of chains that do not mix.
    """
    draws = DRAWS[method] if draws is None else draws
    chains = _chains(method, burn_in=burn_in, leapfrog_steps=leapfrog_steps)
    from rich.console import Console
    from rich.progress import track

    from vae_ext.aevb.marginal import LEAST_HMC_SAMPLES, MOST_LATENTS, MarginalEstimate
    from vae_ext.aevb.mixing import Mixing, require_most

    if method == "hmc" and draws < LEAST_HMC_SAMPLES:
        raise ConfigError("draws", f"is {draws}: expected {LEAST_HMC_SAMPLES} or more of HMC")
    trained = TrainedModel(run, out, device)
    if method == "hmc" and trained.model.latent_dim > MOST_LATENTS:
        raise UserError(
            f"{run} is a model of {trained.model.latent_dim} latent variables, and --method hmc is for {MOST_LATENTS}"
            " at most: take --method importance"
        )
    data = trained.load_dataset(dataset, data_dir)
    rows = trained.rows(data, part)
    estimate = _estimator(method, trained, draws, chains, seed)
    starts = range(0, min(count, len(rows)), BATCH[method])
    console = Console(stderr=True)
    parts: list[MarginalEstimate] = []
    mixing: Mixing | None = None
    for start in track(starts, "estimating", console=console, transient=True, disable=not console.is_terminal):
        part_estimates, of_part = estimate(data.decode(rows[start : min(start + BATCH[method], count)]), start)
        parts.append(part_estimates)
        if of_part is not None:
            mixing = of_part if mixing is None else Mixing(*_joined([mixing, of_part]))
            require_most(mixing, min(count, len(rows)))
    estimates = MarginalEstimate(*_joined(parts))
    target = trained.save_arrays(FILES[method], estimates._asdict(), gaps=mixing and mixing.unmixed)
    result = {
        "checkpoint": str(trained.checkpoint),
        "dataset": data.name,
        "part": part,
        "method": method,
        "draws": draws,
        **chains,
        "seed": seed,
        **_summary(estimates),
    }
    typer.echo(json.dumps(result) if as_json else f"{_sentence(result)}. {_doubt(result, mixing)}Written to {target}")


def _chains(method: Method, **given: int | None) -> dict[str, int]:
    """How chains of HMC are run, `CHAINS` but for what is given; nothing where there are none."""
    found = {name: value for name, value in given.items() if value is not None}
    if method == "hmc":
        return {**CHAINS, **found}
    for name, value in found.items():
        raise ConfigError(name, f"is {value}, but --method is {method}: leave it out, or take --method hmc")
    return {}


def _estimator(
    method: Method, trained: TrainedModel, draws: int, chains: dict[str, int], seed: int
) -> Callable[[Tensor, int], tuple[MarginalEstimate, Mixing | None]]:
    """From datapoints, and the number of the first, to their estimates, and how chains of HMC mix."""
    import torch

    from vae_ext import ops
    from vae_ext.aevb.marginal import estimate_by_hmc, importance_log_marginal

    generator = torch.Generator(trained.device).manual_seed(seed)
    if method == "importance":
        state = ops.make_rng_state(generator)
        return lambda x, first: (
            importance_log_marginal(trained.model, x, draws, rng_state=state, first_row=first),
            None,
        )

    def by_hmc(x: Tensor, first: int) -> tuple[MarginalEstimate, Mixing]:
        try:
            return estimate_by_hmc(trained.model, x, draws, **chains, generator=generator)
        except UserError as error:
            raise UserError(f"datapoints {first} to {first + len(x) - 1}: {error}") from error

    return by_hmc


def _joined(batches: Iterable[tuple[Tensor, ...]]) -> list[Tensor]:
    """Batch after batch of each column."""
    import torch

    return [torch.cat(column) for column in zip(*batches, strict=True)]


def _summary(estimates: MarginalEstimate) -> dict[str, Any]:
    """Of the mean: its standard error over datapoints, and the part of that which more draws would mend."""
    known = estimates.log_marginal.isfinite()
    log_p, errors, effective = (each[known] for each in estimates)
    count = len(log_p)
    return {
        "datapoints": len(known),
        "datapoints_without_estimate": len(known) - count,
        "log_marginal": log_p.mean().item(),
        "standard_error": log_p.std().item() / math.sqrt(count) if count > 1 else None,
        "standard_error_of_draws": errors.square().sum().sqrt().item() / count,
        "least_effective_sample_size": effective.min().item(),
        "median_effective_sample_size": effective.median().item(),
        "datapoints_of_few_effective_draws": int((effective < FEWEST_EFFECTIVE).sum()),
    }


def _sentence(result: dict[str, Any]) -> str:
    part = {"test": "held-out", "train": "training"}[result["part"]]
    count = result["datapoints"] - result["datapoints_without_estimate"]
    error = "" if result["standard_error"] is None else f"{result['standard_error']:.2f} over datapoints, "
    return (
        f"{result['dataset']}: log p(x) {result['log_marginal']:.2f} nats (standard error {error}"
        f"{result['standard_error_of_draws']:.3f} over draws) of {count:,} {part} datapoints by"
        f" {NAMES[result['method']]}, {result['draws']:,} each; effective sample size"
        f" {result['median_effective_sample_size']:,.0f} in the median, {result['least_effective_sample_size']:,.1f} at"
        " least"
    )


def _doubt(result: dict[str, Any], mixing: Mixing | None) -> str:
    """What to do where there is no estimate, or none to be trusted."""
    if mixing is not None:
        gaps = f"{mixing.gaps()}, and the mean is of the others alone. " if mixing.unmixed.any() else ""
        modes = "Chains see one mode of a posterior: where there are others log p(x) is too high, with no sign of it. "
        return gaps + modes
    few = result["datapoints_of_few_effective_draws"]
    if few == 0:
        return ""
    return (
        f"Fewer than {FEWEST_EFFECTIVE} draws decide the estimates of {few:,}, which are too low, and by more than"
        " their errors say: q(z given x) misses the posterior, so take --method hmc (of up to 5 latents) or many more"
        " --draws. "
    )
