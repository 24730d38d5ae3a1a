"""Auto-Encoding Variational Bayes (Kingma & Welling 2013) on the fused operators."""

from vae_ext.aevb.checkpoint import Checkpoint, load_checkpoint, resume, save_checkpoint
from vae_ext.aevb.estimators import minibatch_bound, score_function, sgvb_a, sgvb_b
from vae_ext.aevb.interface import Gaussian, Model
from vae_ext.aevb.likelihoods import BernoulliLikelihood, GaussianLikelihood, Likelihood
from vae_ext.aevb.marginal import MarginalEstimate, hmc_log_marginal, importance_log_marginal
from vae_ext.aevb.models import VAE, AutoEncoder, VAEConfig
from vae_ext.aevb.networks import BernoulliMLP, ConvDecoder, ConvEncoder, GaussianHead, GaussianMLP
from vae_ext.aevb.run import Display, Record, RunDirectory, train
from vae_ext.aevb.trainer import Trainer, datapoint_bounds
from vae_ext.train_config import TrainConfig

__all__ = [
    "VAE",
    "AutoEncoder",
    "BernoulliLikelihood",
    "BernoulliMLP",
    "Checkpoint",
    "ConvDecoder",
    "ConvEncoder",
    "Display",
    "Gaussian",
    "GaussianHead",
    "GaussianLikelihood",
    "GaussianMLP",
    "Likelihood",
    "MarginalEstimate",
    "Model",
    "Record",
    "RunDirectory",
    "TrainConfig",
    "Trainer",
    "VAEConfig",
    "datapoint_bounds",
    "hmc_log_marginal",
    "importance_log_marginal",
    "load_checkpoint",
    "minibatch_bound",
    "resume",
    "save_checkpoint",
    "score_function",
    "sgvb_a",
    "sgvb_b",
    "train",
]
