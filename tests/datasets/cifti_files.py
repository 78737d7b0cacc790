"""Real CIFTI time series for tests, as small as they need be."""

from pathlib import Path

import nibabel
import numpy as np
from nibabel import cifti2

AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])
CORTEX, OTHERS = 12, 8


def write_cifti(file: Path, data: np.ndarray, cortex: int = CORTEX, step_s: float = 1.0) -> None:
    """Write data (trs, grayordinates), of which the first ones are the cortex's, half of them left."""
    half = cortex // 2
    surface = 32492 if cortex > 1000 else half
    parts = [
        cifti2.BrainModelAxis.from_surface(np.arange(half), surface, f"CORTEX_{side}") for side in ("LEFT", "RIGHT")
    ]
    grid = np.stack(np.unravel_index(np.arange(data.shape[1] - cortex), (64, 64, 64)), axis=1)
    parts.append(
        cifti2.BrainModelAxis("CIFTI_STRUCTURE_THALAMUS_LEFT", voxel=grid, affine=AFFINE, volume_shape=(64,) * 3)
    )
    axes = (cifti2.SeriesAxis(0, step_s, len(data)), parts[0] + parts[1] + parts[2])
    file.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Cifti2Image(data, axes), file)
