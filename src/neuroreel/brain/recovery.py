"""How well masked patches are recovered, beside what is trivial: the mean, and a ridge from the visible patches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from neuroreel.brain.masked import MaskedBrain
from neuroreel.core import checks
from neuroreel.fit.ridge import predict_ridge, solve_ridge_cv

ALPHAS = tuple(float(alpha) for alpha in np.geomspace(1e-1, 1e5, 13))


@dataclass(frozen=True)
class Recovery:
    """Masked activity of held-out windows, recovered.

    Attributes
    ----------
    r2 : by predictor ("masked", "ridge", "mean"): 1 - squared error / squared distance from the training mean, over
        all masked voxels of all windows and masks, z-scored; the mean's is 0 by this definition.
    voxel_r2 : by predictor, (voxels,), NaN where a voxel was never masked.
    """

    r2: dict[str, float]
    voxel_r2: dict[str, np.ndarray]


def score_recovery(
    brain: MaskedBrain,
    subject: str,
    train: np.ndarray,
    test: np.ndarray,
    *,
    masks: int = 4,
    seed: int = 0,
    groups: np.ndarray | None = None,
    ridge: bool = True,
) -> Recovery:
    """Score a masked autoencoder on held-out windows under a few masks, and a ridge fitted anew for each of them.

    The ridge predicts each masked voxel of each volume from the visible voxels of all volumes of the window, with a
    penalty of its own that is chosen by cross-validation within the training windows.

    Parameters
    ----------
    train, test : (n, trs, voxels) windows in the units that the network was trained in.
    masks : number of masks; every test window is scored under each.
    groups : (n,) runs of the training windows, which cross-validation does not split.
    """
    patches, moments = brain.patches(subject), brain.moments(subject)
    checks.dimensions("test", test, ("n", "trs", "voxels"))
    x, y = moments.apply(train), moments.apply(test)
    names = ("masked", "ridge", "mean") if ridge else ("masked", "mean")
    errors = {name: np.zeros(patches.space.size) for name in names}
    total = np.zeros(patches.space.size)
    for mask in brain.masks(subject, masks, seed):
        hidden = patches.spread(mask)
        truth = y[:, :, hidden]
        total[hidden] += (truth**2).sum((0, 1))
        made = moments.apply(brain.recover(test, subject, mask))[:, :, hidden]
        errors["masked"][hidden] += ((truth - made) ** 2).sum((0, 1))
        errors["mean"][hidden] += (truth**2).sum((0, 1))
        if ridge:
            seen = x[:, :, ~hidden].reshape(len(x), -1)
            fit = solve_ridge_cv(seen, x[:, :, hidden].reshape(len(x), -1), alphas=ALPHAS, folds=4, groups=groups)
            made = predict_ridge(fit, y[:, :, ~hidden].reshape(len(y), -1)).reshape(truth.shape)
            errors["ridge"][hidden] += ((truth - made) ** 2).sum((0, 1))
    known = np.where(total > 0, total, np.nan)
    return Recovery(
        {name: float(1 - error.sum() / total.sum()) for name, error in errors.items()},
        {name: 1 - error / known for name, error in errors.items()},
    )
