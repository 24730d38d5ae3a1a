"""Weights with a posterior: modules whose parameters are drawn from a Gaussian instead of being known."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor, nn
from torch.func import functional_call

from vae_ext import ops
from vae_ext.aevb.models import AutoEncoder, evaluating


class Bayesian(nn.Module):
    """A module whose P parameters, theta, have a Gaussian posterior, as one long row (appendix F of the paper):

        q(theta) = N(theta; mean, diag(exp(log_var))),   p(theta) = N(theta; 0, prior_std^2 I)

    It goes wherever the module went. Inside `weights_drawn` it computes with a draw of theta, elsewhere with the mean.
    Buffers, such as BatchNorm's averages, stay what they are.

    Args:
        module: any; taken over. Its own parameters are not used any more: the mean starts as they are.
        std: of q at first: so small that the module begins as what it was.
        prior_std: of p.

    Attributes:
        mean, log_var: `[1, P]`.

    Raises:
        ValueError: the module has no parameters, or a standard deviation is not positive and finite.
        TypeError: its parameters are of several dtypes.
    """

    def __init__(self, module: nn.Module, *, std: float = 0.03, prior_std: float = 1.0) -> None:
        super().__init__()
        for name, value in (("std", std), ("prior_std", prior_std)):
            if not (value > 0 and math.isfinite(value)):
                raise ValueError(f"{name} is {value}; expected a positive, finite number")
        named = dict(module.named_parameters())
        dtypes = {parameter.dtype for parameter in named.values()}
        if not named:
            raise ValueError(f"{type(module).__name__} has no parameters; expected a module with something to learn")
        if len(dtypes) > 1:
            raise TypeError(f"the parameters of {type(module).__name__} are of {dtypes}; expected one dtype")
        theta = nn.utils.parameters_to_vector(named.values()).detach().unsqueeze(0)
        self.module = module.requires_grad_(False)
        self.mean = nn.Parameter(theta)
        self.log_var = nn.Parameter(torch.full_like(theta, 2 * math.log(std)))
        self.prior_log_var = 2 * math.log(prior_std)
        self._shapes = {name: parameter.shape for name, parameter in named.items()}
        self._drawn: Tensor | None = None

    def forward(self, *inputs: Any, **keywords: Any) -> Any:
        """What the module makes of them."""
        theta = self.mean if self._drawn is None else self._drawn
        return functional_call(self.module, self.named_weights(theta), inputs, keywords)

    def named_weights(self, theta: Tensor) -> dict[str, Tensor]:
        """The parameters of the module by name, views into a row `[1, P]`."""
        parts = theta.squeeze(0).split([shape.numel() for shape in self._shapes.values()])
        return {name: part.view(shape) for (name, shape), part in zip(self._shapes.items(), parts, strict=True)}

    def kl(self) -> Tensor:
        """KL(q(theta) || p(theta)) in closed form, 0-d, in nats."""
        return ops.normal_kl(self.mean, self.log_var, prior_log_var=self.prior_log_var).squeeze(0)

    @contextmanager
    def drawn(self, rng_state: Tensor, stream: int = 0) -> Iterator[Tensor]:
        """Computes with one draw of theta meanwhile, differentiable in mean and log_var; gives `kl()`."""
        theta, kl = ops.normal_rsample_kl(
            self.mean, self.log_var, prior_log_var=self.prior_log_var, rng_state=rng_state, stream=stream
        )
        before, self._drawn = self._drawn, theta
        try:
            yield kl.squeeze(0)
        finally:
            self._drawn = before


def bayesian(model: AutoEncoder, *, encoder: bool = False, std: float = 0.03, prior_std: float = 1.0) -> AutoEncoder:
    """The model with a posterior over the weights of its decoder, and of its encoder too where that is wanted.

    It takes the model's modules over. The paper's theta are the decoder's weights; the encoder's are phi, which it
    fits as points.
    """
    of_encoder = Bayesian(model.encoder, std=std, prior_std=prior_std) if encoder else model.encoder
    of_decoder = Bayesian(model.decoder, std=std, prior_std=prior_std)
    return AutoEncoder(of_encoder, of_decoder, model.likelihood, latent_dim=model.latent_dim)


def bayesian_modules(model: nn.Module) -> list[Bayesian]:
    """Every `Bayesian` in the model. Raises ValueError where there is none."""
    found = [module for module in model.modules() if isinstance(module, Bayesian)]
    if not found:
        raise ValueError(f"{type(model).__name__} has no Bayesian module; expected one: see vae_ext.aevb.bayesian")
    return found


@contextmanager
def weights_drawn(
    model: nn.Module, *, generator: Generator | None = None, rng_state: Tensor | None = None
) -> Iterator[Tensor]:
    """Every `Bayesian` in the model computes with one draw of its weights meanwhile; gives their KL, 0-d, in nats.

    The noise is under streams 1, 2, ... of the state, so that z may take stream 0 of the same. `generator` and
    `rng_state` are as for `vae_ext.normal_rsample`.

    Example::

        with weights_drawn(model) as kl:
            bound = minibatch_bound(sgvb_b(model, x), dataset_size) - kl
    """
    modules = bayesian_modules(model)
    rng_state = ops.resolve_rng_state(generator, rng_state, modules[0].mean.device)
    with ExitStack() as stack:
        kls = [stack.enter_context(module.drawn(rng_state, stream)) for stream, module in enumerate(modules, start=1)]
        yield torch.stack(kls).sum()


class Prediction(NamedTuple):
    """What a Bayesian model computes, over draws of its weights.

    Attributes:
        mean: the prediction.
        std: how much the weights leave open.
    """

    mean: Tensor
    std: Tensor


@torch.no_grad()
def predict(
    model: nn.Module, compute: Callable[[], Tensor], draws: int = 100, generator: Generator | None = None
) -> Prediction:
    """Mean and standard deviation, over draws of the weights, of what `compute` returns; the model is as in evaluation.

    Example::

        predict(model, lambda: model.decode(z))
    """
    outputs = []
    with evaluating(model):
        for _ in range(draws):
            with weights_drawn(model, generator=generator):
                outputs.append(compute())
    stacked = torch.stack(outputs)
    return Prediction(stacked.mean(0), stacked.std(0, correction=0))
