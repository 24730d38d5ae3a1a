"""What plots and pictures say beside what they draw: titles, scales, and where a curve leaves its panel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from tests.commands import SMALL, arrays_of, invoke
from vae_ext import pictures, plots
from vae_ext.aevb import VAE, VAEConfig, explore
from vae_ext.aevb.gradient_variance import Measurement, Plan, Variance
from vae_ext.aevb.run_directory import Record
from vae_ext.aevb.small_data import Learned

pytestmark = pytest.mark.cpu_only("starts commands, which choose a device themselves")


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Those that were written."""
    written: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, dpi: written.append(figure))
    return written


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "digits"
    assert invoke("train", *SMALL, "--out", out).exit_code == 0
    return out


@pytest.mark.parametrize(
    ("command", "title"),
    [
        (("denoise",), "Denoising digits: Gaussian noise of standard deviation 0.4\ninferred by gradients: "),
        (("denoise", "--noise", "flips"), "Denoising digits: bits flipped with probability 0.1\n"),
        (("inpaint", "--hide", "left", "--share", 0.25), "Inpainting digits: 25% hidden (left)\n"),
        (("inpaint", "--method", "hmc"), "Inpainting digits: 50% hidden (bottom)\ninferred by HMC: "),
        (("inpaint", "--mask", "MASK"), "Inpainting digits: 12% hidden by a mask\n"),
        (("upscale",), "Upscaling digits: from pictures 2 times smaller\n"),
    ],
)
def test_what_was_inferred_is_said_and_its_uncertainty_has_a_scale(
    run: Path, tmp_path: Path, figures: list[Figure], command: tuple[object, ...], title: str
) -> None:
    mask = np.ones((8, 8), dtype=bool)
    mask[3] = False
    np.save(tmp_path / "mask.npy", mask)
    name, *options = (tmp_path / "mask.npy" if part == "MASK" else part for part in command)
    result = invoke(name, run, "--count", 3, "--draws", 5, *options, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    (figure,) = figures
    assert figure.get_suptitle().startswith(title)
    _, bar = figure.axes
    assert bar.get_ylabel() == "standard deviation, in units of $x$"
    (path,) = tmp_path.glob("*.npz")
    assert bar.get_ylim() == pytest.approx((0, arrays_of(path)["std"].max()))


@pytest.mark.parametrize(("latents", "rest"), [(2, ""), (5, ", the other 3 of $z$ at 0")])
def test_a_manifold_says_of_which_latents_it_is(figures: list[Figure], latents: int, rest: str) -> None:
    model = VAE(VAEConfig(64, hidden_dim=8, latent_dim=latents, event_shape=(8, 8)))
    plane = explore.manifold(model, 3, (1, 0))
    pictures.manifold(plane, (1, 0), (8, 8), "digits", Path("manifold.png"))
    (axes,) = figures[0].axes
    assert axes.get_title() == f"Manifold, digits: mean of $p(x\\,|\\,z)$ over $z_{{2}}$ and $z_{{1}}${rest}"
    assert axes.get_xlabel() == "$z_{2}$, by quantiles of $N(0, 1)$"


def test_a_curve_that_leaves_its_panel_is_marked_where_it_does(figures: list[Figure]) -> None:
    """MAP falls from -10 to -210 between 1,000 and 10,000 samples, past a limit of -30 less a margin."""
    full = [Record(10**n, bound, bound, 0.0) for n, bound in ((2, -30.0), (3, -20.0), (4, -10.0))]
    fallen = [Record(10**n, bound, bound, 0.0) for n, bound in ((2, -30.0), (3, -10.0), (4, -210.0))]
    model = VAE(VAEConfig(4, hidden_dim=2))
    learned = [Learned("full_vb_decoder", 100, tuple(full), model), Learned("map", 100, tuple(fallen), model)]
    plots.full_vb(learned, "digits", Path("full_vb.png"))
    (axes,) = figures[0].axes
    low, high = axes.get_ylim()
    assert (low, high) == pytest.approx((-31.6, -5.2))
    marks = [line for line in axes.lines if line.get_marker() in ("v", "^") and np.size(line.get_xdata())]
    assert [line.get_marker() for line in marks] == ["v", "v"]
    for line in marks:
        assert line.get_ydata() == pytest.approx([low])
        assert np.log10(line.get_xdata()) == pytest.approx([3 + (low + 10) / -200])
    fallen_label = f"MAP: {plots.typeset(-210, 1)} at the end,\n{plots.typeset(-10, 1)} at best"
    assert any(label.startswith(fallen_label) for label in axes.get_legend_handles_labels()[1])


def test_a_curve_that_is_beyond_its_panel_from_the_start_is_marked_there(figures: list[Figure]) -> None:
    """The held-out bounds decide the limits; of training bounds one leaves them above, the other never is within."""
    above = [Record(10**n, train, bound, 0.0) for n, train, bound in ((2, -20.0, -30.0), (3, 90.0, -20.0))]
    below = [Record(10**n, -500.0, bound, 0.0) for n, bound in ((2, -30.0), (3, -20.0))]
    model = VAE(VAEConfig(4, hidden_dim=2))
    learned = [Learned("map", 100, tuple(above), model), Learned("full_vb_decoder", 100, tuple(below), model)]
    plots.full_vb(learned, "digits", Path("full_vb.png"))
    (axes,) = figures[0].axes
    marks = {
        line.get_marker(): line for line in axes.lines if line.get_marker() in ("v", "^") and np.size(line.get_xdata())
    }
    low, high = axes.get_ylim()
    assert marks["v"].get_xdata() == pytest.approx([100])
    assert marks["v"].get_ydata() == pytest.approx([low])
    assert np.log10(marks["^"].get_xdata()) == pytest.approx([2 + (high + 20) / 110])
    assert marks["^"].get_ydata() == pytest.approx([high])


def test_the_noise_is_no_more_than_all_of_the_variance(figures: list[Figure]) -> None:
    """Where the estimates of both say otherwise."""
    plan = Plan((1, 2), (10,))
    measurements = [
        Measurement(one.estimator, one.draws, one.batch_size, 3, variance, variance)
        for one in plan.settings()
        for variance in [Variance(4.0 / one.draws, 0.1, 3.0, 1.0)]
    ]
    plots.gradient_variance(measurements, plan, "digits", Path("variance.png"))
    panel = figures[0].axes[0]
    noise = [line for line in panel.lines if line.get_linestyle() == ":"]
    assert len(noise) == 3
    for line in noise:
        assert np.array_equal(line.get_ydata(), [3.0, 2.0])
