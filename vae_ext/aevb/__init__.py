"""Auto-Encoding Variational Bayes (Kingma & Welling 2013) on the fused operators."""

from vae_ext.aevb.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from vae_ext.aevb.estimators import minibatch_bound, sgvb_b
from vae_ext.aevb.models import VAE, BernoulliDecoder, GaussianEncoder, VAEConfig
from vae_ext.aevb.trainer import Trainer, datapoint_bounds
from vae_ext.train_config import TrainConfig

__all__ = [
    "VAE",
    "BernoulliDecoder",
    "Checkpoint",
    "GaussianEncoder",
    "TrainConfig",
    "Trainer",
    "VAEConfig",
    "datapoint_bounds",
    "load_checkpoint",
    "minibatch_bound",
    "save_checkpoint",
    "sgvb_b",
]
