"""Full variational Bayes: Algorithm 2 of the paper, which infers the weights as it infers z (appendix F)."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from vae_ext import ops
from vae_ext.aevb.bayesian import bayesian, bayesian_modules, weights_drawn
from vae_ext.aevb.compatibility import model_config_for
from vae_ext.aevb.estimators import minibatch_bound, sgvb_b
from vae_ext.aevb.memory import require_memory
from vae_ext.aevb.minibatches import Minibatch
from vae_ext.aevb.models import VAE, AutoEncoder
from vae_ext.aevb.trainer import Trainer, sketch
from vae_ext.datasets import Dataset
from vae_ext.train_config import TrainConfig


def full_vb_bound(
    model: AutoEncoder,
    x: Tensor,
    dataset_size: int,
    num_samples: int = 1,
    *,
    generator: Generator | None = None,
    rng_state: Tensor | None = None,
) -> Tensor:
    """The bound of log p(X) of the whole dataset, from a minibatch of M of its N datapoints and one draw of theta:

        L(phi; X) = N/M sum_i L_B(x_i; theta) - KL(q(theta) || p(theta)),   theta = mu + sigma * zeta

    The estimator of appendix F's example, both KLs in closed form: there each of L draws has a datapoint, a z and a
    theta of its own, here the datapoints of a minibatch share theta. Its gradient is unbiased in the means and
    log-variances of q(theta), and in all that has no posterior.

    Args:
        model: with at least one `Bayesian` module.
        x: `[M, D]`.
        dataset_size: N.
        num_samples: draws of z for each datapoint.
        generator, rng_state: of both kinds of noise; one of them at most.

    Returns:
        0-d, in nats.

    Raises:
        ValueError: there is no `Bayesian` module, or both of the last were given.
    """
    rng_state = ops.resolve_rng_state(generator, rng_state, x.device)
    with weights_drawn(model, rng_state=rng_state) as kl:
        return minibatch_bound(sgvb_b(model, x, num_samples, rng_state=rng_state), dataset_size) - kl


def bayesian_vae(dataset: Dataset, config: TrainConfig, device: torch.device, *, encoder: bool = False) -> AutoEncoder:
    """The model that `config` asks for, with a posterior over its decoder's weights, and the encoder's if wanted.

    Raises:
        UserError: it is no model of such data, or there is certainly not enough memory to train it.
    """
    require_memory(bayesian(sketch(dataset, config), encoder=encoder), dataset, config, device, team_size=1)
    generator = torch.Generator().manual_seed(config.seed)
    return bayesian(VAE(model_config_for(dataset, config), generator), encoder=encoder)


class FullVBTrainer(Trainer):
    """Algorithm 2 as `Trainer` does Algorithm 1: maximises `full_vb_bound`, one minibatch and one theta at a time.

    The bound of a datapoint is L(x_i; theta) - KL(q(theta) || p(theta)) / N here, so that the training bound is that of
    log p(X) / N; held-out bounds are without that KL. What has no posterior keeps the prior that `Trainer` gives it.

    Args:
        model: with at least one `Bayesian` module; when left out, the one that `config` asks for, its decoder Bayesian.

    All else is as for `Trainer`.
    """

    WEIGHT_DRAWS = 10

    def __init__(
        self,
        dataset: Dataset,
        config: TrainConfig,
        device: torch.device | str,
        model: AutoEncoder | None = None,
        *,
        cuda_graph: bool = True,
    ) -> None:
        device = torch.device(device)
        super().__init__(dataset, config, device, model or bayesian_vae(dataset, config, device), cuda_graph=cuda_graph)
        theta = {parameter for module in bayesian_modules(self.model) for parameter in module.parameters()}
        # The prior of theta is in the KL, so that weight decay would be the same again.
        (group,) = self.optimizer.param_groups
        of_theta = [parameter for parameter in group["params"] if parameter in theta]
        group["params"] = [parameter for parameter in group["params"] if parameter not in theta]
        self.optimizer.add_param_group({**group, "params": of_theta, "weight_decay": 0.0})

    def bound_of(self, minibatch: Minibatch) -> Tensor:
        """L(x_i; theta) of every datapoint less its share of the KL, in nats."""
        with weights_drawn(self.model, rng_state=minibatch.rng_state) as kl:
            return super().bound_of(minibatch) - kl / self.dataset_size

    @torch.no_grad()
    def held_out_bound(self) -> float:
        """The mean of E_q(theta)[L(x; theta)] over held-out datapoints: at most that of log p(x given X) by q."""
        generator = torch.Generator(self.device).manual_seed(0)
        total = 0.0
        for _ in range(self.WEIGHT_DRAWS):
            with weights_drawn(self.model, generator=generator):
                total += super().held_out_bound()
        return total / self.WEIGHT_DRAWS
