"""The models whose training steps are measured, in nothing but torch.nn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn


class Vae(nn.Module):
    """An encoder of `[M, *E]` to `[M, 2 J]`, mean and log_var side by side, and a decoder of `[M, J]` to logits."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_var = self.encoder(x).chunk(2, dim=-1)
        return mean, log_var

    def decode(self, z: Tensor) -> Tensor:
        logits: Tensor = self.decoder(z)
        return logits


def _mlp() -> Vae:
    """784-500-20 and back, with tanh: the paper's network for MNIST (appendix C)."""
    return Vae(
        nn.Sequential(nn.Linear(784, 500), nn.Tanh(), nn.Linear(500, 2 * 20)),
        nn.Sequential(nn.Linear(20, 500), nn.Tanh(), nn.Linear(500, 784)),
    )


def _convolutional() -> Vae:
    """3×64×64 down to 64×8×8 by strides of 2 and back, with 64 latents."""
    encoder = nn.Sequential(
        nn.Conv2d(3, 16, 4, 2, 1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 4, 2, 1),
        nn.ReLU(),
        nn.Conv2d(32, 64, 4, 2, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64 * 8 * 8, 2 * 64),
    )
    decoder = nn.Sequential(
        nn.Linear(64, 64 * 8 * 8),
        nn.ReLU(),
        nn.Unflatten(1, (64, 8, 8)),
        nn.ConvTranspose2d(64, 32, 4, 2, 1),
        nn.ReLU(),
        nn.ConvTranspose2d(32, 16, 4, 2, 1),
        nn.ReLU(),
        nn.ConvTranspose2d(16, 3, 4, 2, 1),
    )
    return Vae(encoder, decoder)


@dataclass(frozen=True)
class Kind:
    """How to make a model, and the shape of a datapoint."""

    make: Callable[[], Vae]
    event_shape: tuple[int, ...]


MODELS: Mapping[str, Kind] = {"mlp": Kind(_mlp, (784,)), "convolutional": Kind(_convolutional, (3, 64, 64))}
