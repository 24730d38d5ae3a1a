"""Which model goes with which data."""

from __future__ import annotations

from dataclasses import fields

from vae_ext.aevb.models import AutoEncoder, VAEConfig
from vae_ext.datasets import Dataset
from vae_ext.errors import UserError
from vae_ext.train_config import ModelChoices, TrainConfig


def model_config_for(dataset: Dataset, config: TrainConfig) -> VAEConfig:
    """The model that `config` asks for, of the datapoints of `dataset`.

    Raises:
        UserError: it is no model of such datapoints.
    """
    choices = {field.name: getattr(config, field.name) for field in fields(ModelChoices)}
    model_config = VAEConfig(dataset.data_dim, config.hidden, config.latent, dataset.event_shape, **choices)
    check_range(model_config, dataset)
    return model_config


def check_range(choices: ModelChoices, dataset: Dataset) -> None:
    """Raises UserError where the model is one of values in [0, 1] and the data are others."""
    low, high = dataset.range
    if not choices.unit_interval or (low >= 0 and high <= 1):
        return
    if choices.likelihood == "bernoulli":
        why, remedy = "a Bernoulli likelihood is of values in [0, 1]", "a Gaussian likelihood of linear mean"
    else:
        why, remedy = "the mean of the Gaussian decoder is a sigmoid, in [0, 1]", "a linear mean"
    raise _out_of_range(dataset, why, remedy)


def check_support(model: AutoEncoder, dataset: Dataset) -> None:
    """Raises UserError where the model, one of one's own modules maybe, is none of such values."""
    if model.config is not None:
        check_range(model.config, dataset)
    (least, greatest), (low, high) = model.likelihood.support, dataset.range
    if low < least or high > greatest:
        why = f"{type(model.likelihood).__name__} is of values in [{least:g}, {greatest:g}]"
        raise _out_of_range(dataset, why, "another likelihood")


def _out_of_range(dataset: Dataset, why: str, remedy: str) -> UserError:
    low, high = dataset.range
    return UserError(
        f"{dataset.name} holds values from {low:g} to {high:g}, but {why}: rescale them, or train a model with {remedy}"
    )
