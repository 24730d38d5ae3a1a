"""The networks of appendix C: a Gaussian MLP that encodes and a Bernoulli MLP that decodes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


class GaussianEncoder(nn.Module):
    """q(z given x) = N(mean, exp(log_var)): a tanh layer, then a linear one whose halves are those two."""

    def __init__(self, data_dim: int, hidden_dim: int, latent_dim: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(data_dim, hidden_dim)
        self.output = nn.Linear(hidden_dim, 2 * latent_dim)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """`[B, D]` to mean and log_var, each `[B, J]` (views of one tensor)."""
        mean, log_var = self.output(torch.tanh(self.hidden(x))).chunk(2, dim=-1)
        return mean, log_var


class BernoulliDecoder(nn.Module):
    """p(x given z) = Bernoulli(sigmoid(logits)): one tanh layer, then one linear layer."""

    def __init__(self, latent_dim: int, hidden_dim: int, data_dim: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(latent_dim, hidden_dim)
        self.output = nn.Linear(hidden_dim, data_dim)

    def forward(self, z: Tensor) -> Tensor:
        """`[*S, J]` to logits `[*S, D]`."""
        logits: Tensor = self.output(torch.tanh(self.hidden(z)))
        return logits


@dataclass(frozen=True)
class VAEConfig:
    """The sizes that define a `VAE`."""

    data_dim: int
    hidden_dim: int = 500
    latent_dim: int = 2


class VAE(nn.Module):
    """The encoder q(z given x) and decoder p(x given z) trained together; the prior p(z) is N(0, I).

    Args:
        config: the sizes.
        generator: draws the initial parameters (on the CPU, so that every device starts from the same ones).
    """

    def __init__(self, config: VAEConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        self.encoder = GaussianEncoder(config.data_dim, config.hidden_dim, config.latent_dim)
        self.decoder = BernoulliDecoder(config.latent_dim, config.hidden_dim, config.data_dim)
        self.reset_parameters(generator)

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Weights from N(0, 1/fan-in), biases from N(0, 0.01^2), as the authors' own code does."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                module.weight.normal_(0.0, module.in_features**-0.5, generator=generator)
                module.bias.normal_(0.0, 0.01, generator=generator)
