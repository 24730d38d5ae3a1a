"""Auto-Encoding Variational Bayes (Kingma & Welling 2013) on the fused operators."""

from vae_ext.aevb.bayesian import Bayesian, Prediction, bayesian, predict, weights_drawn
from vae_ext.aevb.checkpoint import Checkpoint, load_checkpoint, resume, save_checkpoint
from vae_ext.aevb.estimators import minibatch_bound, score_function, sgvb_a, sgvb_b
from vae_ext.aevb.full_vb import FullVBTrainer, full_vb_bound
from vae_ext.aevb.interface import Gaussian, Model
from vae_ext.aevb.likelihoods import BernoulliLikelihood, GaussianLikelihood, Likelihood
from vae_ext.aevb.marginal import MarginalEstimate, hmc_log_marginal, importance_log_marginal
from vae_ext.aevb.models import VAE, AutoEncoder, VAEConfig
from vae_ext.aevb.networks import BernoulliMLP, ConvDecoder, ConvEncoder, GaussianHead, GaussianMLP
from vae_ext.aevb.observations import BitFlips, BlockMeans, GaussianNoise, Observation, SaltAndPepper, Visible
from vae_ext.aevb.observed import Inferred, denoise, infer, inpaint, upscale
from vae_ext.aevb.run import Display, train
from vae_ext.aevb.run_directory import Record, RunDirectory
from vae_ext.aevb.trainer import Trainer, datapoint_bounds
from vae_ext.train_config import TrainConfig

__all__ = [
    "VAE",
    "AutoEncoder",
    "Bayesian",
    "BernoulliLikelihood",
    "BernoulliMLP",
    "BitFlips",
    "BlockMeans",
    "Checkpoint",
    "ConvDecoder",
    "ConvEncoder",
    "Display",
    "FullVBTrainer",
    "Gaussian",
    "GaussianHead",
    "GaussianLikelihood",
    "GaussianMLP",
    "GaussianNoise",
    "Inferred",
    "Likelihood",
    "MarginalEstimate",
    "Model",
    "Observation",
    "Prediction",
    "Record",
    "RunDirectory",
    "SaltAndPepper",
    "TrainConfig",
    "Trainer",
    "VAEConfig",
    "Visible",
    "bayesian",
    "datapoint_bounds",
    "denoise",
    "full_vb_bound",
    "hmc_log_marginal",
    "importance_log_marginal",
    "infer",
    "inpaint",
    "load_checkpoint",
    "minibatch_bound",
    "predict",
    "resume",
    "save_checkpoint",
    "score_function",
    "sgvb_a",
    "sgvb_b",
    "train",
    "upscale",
    "weights_drawn",
]
