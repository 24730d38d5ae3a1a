"""What commands leave in a folder beside the run itself: the names of their files, all in one table.

A new run in the folder moves them aside with the run that they were made of.
"""

from __future__ import annotations

LEARNING_CURVE = "learning_curve"
SAMPLES = "samples"
CODES = "codes"
RECONSTRUCTIONS = "reconstructions"
INTERPOLATIONS = "interpolations"
MANIFOLD = "manifold"
MARGINAL_IMPORTANCE = "marginal_importance"
MARGINAL_HMC = "marginal_hmc"
GRADIENT_VARIANCE = "gradient_variance"
DENOISED = "denoised"
INPAINTED = "inpainted"
UPSCALED = "upscaled"
FULL_VB = "full_vb"
FULL_VB_UNCERTAINTY = "full_vb_uncertainty"

KINDS: dict[str, tuple[str, ...]] = {
    LEARNING_CURVE: ("png",),
    SAMPLES: ("npz", "png"),
    CODES: ("npz", "png"),
    RECONSTRUCTIONS: ("npz", "png"),
    INTERPOLATIONS: ("npz", "png"),
    MANIFOLD: ("npz", "png"),
    MARGINAL_IMPORTANCE: ("npz",),
    MARGINAL_HMC: ("npz",),
    GRADIENT_VARIANCE: ("json", "png"),
    DENOISED: ("npz", "png"),
    INPAINTED: ("npz", "png"),
    UPSCALED: ("npz", "png"),
    FULL_VB: ("json", "npz", "png"),
    FULL_VB_UNCERTAINTY: ("png",),
}
FILES = tuple(f"{stem}.{kind}" for stem, kinds in KINDS.items() for kind in kinds)
