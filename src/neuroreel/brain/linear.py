"""Linear decoders from voxels to features: estimators around the solvers of `neuroreel.fit`.

`SparseDecoder` and `TopVoxelRidge` are those of generic object decoding (Horikawa & Kamitani 2017, Nat. Commun.
8:15037), `L1Decoder` and `ComponentRidge` the visual and the semantic decoder of Wen et al. 2018 (Cereb. Cortex
28:4136).
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Generic, Literal, Self, TypeVar

import numpy as np
from pydantic import Field

from neuroreel.core import checks
from neuroreel.core.config import Config
from neuroreel.core.errors import DataError
from neuroreel.core.files import atomic
from neuroreel.fit.component_ridge import solve_component_ridge
from neuroreel.fit.lasso import LassoSchedule, solve_lasso
from neuroreel.fit.ridge import check_features, check_targets
from neuroreel.fit.selection import Scaling, spread_weights, top_features
from neuroreel.fit.sparse import solve_sparse
from neuroreel.fit.top_ridge import solve_top_ridge

Device = Literal["cpu", "cuda"]


class SparseDecoderConfig(Config):
    """Settings of `SparseDecoder`; the paper takes 500 voxels in single areas and 1000 in LVC, HVC and VC."""

    voxels: int = Field(default=500, ge=1)
    n_iter: int = Field(default=2000, ge=1)
    prune: float = Field(default=1e-10, ge=0, lt=1)
    tolerance: float = Field(default=1e-10, ge=0)
    device: Device = "cpu"


class TopVoxelRidgeConfig(Config):
    """Settings of `TopVoxelRidge`; `bias` "penalised" is the formula of PyPI's fastl2lir."""

    voxels: int = Field(default=500, ge=1)
    alpha: float = Field(default=100.0, gt=0)
    bias: Literal["free", "penalised"] = "free"
    device: Device = "cpu"


class L1DecoderConfig(Config):
    """Settings of `L1Decoder`; the schedule is the paper's, see `neuroreel.fit.lasso.LassoSchedule`."""

    penalty: float = Field(default=0.05, ge=0)
    epochs: int = Field(default=50, ge=1)
    batch: int = Field(default=100, ge=1)
    step: float = Field(default=5e-4, gt=0)
    step_decay: float = Field(default=0.96, gt=0, le=1)
    least_step: float = Field(default=1e-4, gt=0)
    momentum: float = Field(default=0.5, ge=0, lt=1)
    last_momentum: float = Field(default=0.9, ge=0, lt=1)
    momentum_epochs: int = Field(default=20, ge=1)
    dropout: float = Field(default=0.3, ge=0, lt=1)
    seed: int = 0
    device: Device = "cpu"

    def schedule(self) -> LassoSchedule:
        """Return the schedule for the solver."""
        return LassoSchedule(**self.model_dump(exclude={"seed", "device"}))


class ComponentRidgeConfig(Config):
    """Settings of `ComponentRidge`; the grid of penalties is relative to the number of voxels."""

    most_components: int = Field(default=256, ge=1)
    alphas: tuple[float, ...] = tuple(10.0**power for power in range(-3, 4))
    folds: int = Field(default=5, ge=2)
    device: Device = "cpu"


C = TypeVar("C", bound=Config)


class LinearDecoder(Generic[C]):
    """What the linear decoders share: targets are predicted as a linear map of the voxels.

    Attributes
    ----------
    coef_ : array of shape (voxels, units)
        In the units of voxels and targets as they were given.
    intercept_ : array of shape (units,)
    """

    config_class: ClassVar[type[Config]]
    config: C
    coef_: np.ndarray
    intercept_: np.ndarray

    def __init__(self, config: C | None = None) -> None:
        self.config = config if config is not None else self.config_class()  # type: ignore[assignment]

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Return the predicted targets (rows, units) of voxels (rows, voxels).

        Raises
        ------
        DataError
            If the decoder isn't fitted, or x has another number of voxels than it was fitted to.
        """
        fitted = hasattr(self, "coef_")
        checks.require(fitted, type(self).__name__, "must be fitted before it predicts", "no weights")
        x = checks.dimensions("x", np.asarray(x), ("rows", "voxels"))
        checks.same_length("x voxels", x.shape[1], "the decoder's voxels", len(self.coef_))
        return checks.finite("x", x) @ self.coef_ + self.intercept_

    def save(self, folder: Path) -> None:
        """Write config.json and weights.safetensors into the folder, all or nothing."""
        from safetensors.numpy import save_file

        fitted = hasattr(self, "coef_")
        checks.require(fitted, type(self).__name__, "must be fitted before it is saved", "no weights")
        with atomic(Path(folder)) as partial:
            partial.mkdir()
            self.config.save(partial / "config.json")
            tensors = {name: np.ascontiguousarray(values) for name, values in self._arrays().items()}
            save_file(tensors, partial / "weights.safetensors", metadata={"decoder": type(self).__name__})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return the decoder that `save` wrote.

        Raises
        ------
        DataError, ConfigError
            If a file is missing or broken, or another kind of decoder was saved.
        """
        from safetensors import SafetensorError, safe_open

        folder = Path(folder)
        decoder = cls(cls.config_class.load(folder / "config.json"))  # type: ignore[arg-type]
        file = folder / "weights.safetensors"
        try:
            with safe_open(file, framework="numpy") as stream:
                kind = (stream.metadata() or {}).get("decoder")
                arrays = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise DataError(
                checks.sentence("weights", "must be whole safetensors", type(error).__name__, file)
            ) from None
        checks.require(kind == cls.__name__, "weights", f"must be of a {cls.__name__}", kind, file)
        lost = sorted({"coef_", "intercept_"} - set(arrays))
        checks.require(not lost, "weights", "must hold coef_ and intercept_", f"none of {', '.join(lost)}", file)
        for name, values in arrays.items():
            setattr(decoder, name, values)
        return decoder

    def _arrays(self) -> dict[str, np.ndarray]:
        return {name: values for name, values in vars(self).items() if name.endswith("_")}

    def _keep(self, x_scale: Scaling, y_scale: Scaling, coef: np.ndarray, bias: np.ndarray) -> Self:
        """Store weights (voxels, units) of standardised voxels and targets in the units that were given."""
        self.coef_ = coef / x_scale.sd[:, None] * y_scale.sd
        self.intercept_ = bias * y_scale.sd + y_scale.mean - x_scale.mean @ self.coef_
        return self


class SparseDecoder(LinearDecoder[SparseDecoderConfig]):
    """Sparse linear regression of every unit on the voxels that correlate with it most.

    Voxels and targets are z-scored (ddof 1; a constant one has the deviation 1), a bias column is added, and the
    prediction is brought back to the targets' units.

    Attributes
    ----------
    chosen_ : array of shape (units, k)
        The voxels of every unit; a weight of 0 among them was pruned.
    """

    config_class = SparseDecoderConfig
    chosen_: np.ndarray

    def fit(self, x: np.ndarray, y: np.ndarray) -> Self:
        """Fit to voxels (rows, voxels) and targets (rows, units)."""
        x, y, scaled, targets, x_scale, y_scale = _standardise(x, y)
        self.chosen_ = top_features(x, y, self.config.voxels)
        settings = self.config.model_dump(include={"n_iter", "prune", "tolerance", "device"})
        fit = solve_sparse(scaled, targets, chosen=self.chosen_, **settings)
        return self._keep(x_scale, y_scale, spread_weights(fit.coef, fit.chosen, x.shape[1]), fit.bias)


class TopVoxelRidge(LinearDecoder[TopVoxelRidgeConfig]):
    """Ridge regression of every unit on the voxels that correlate with it most, both z-scored as in `SparseDecoder`.

    Attributes
    ----------
    chosen_ : array of shape (units, k)
    """

    config_class = TopVoxelRidgeConfig
    chosen_: np.ndarray

    def fit(self, x: np.ndarray, y: np.ndarray) -> Self:
        """Fit to voxels (rows, voxels) and targets (rows, units)."""
        x, y, scaled, targets, x_scale, y_scale = _standardise(x, y)
        self.chosen_ = top_features(x, y, self.config.voxels)
        settings = self.config.model_dump(include={"alpha", "bias", "device"})
        coef, bias = solve_top_ridge(scaled, targets, chosen=self.chosen_, **settings)
        return self._keep(x_scale, y_scale, spread_weights(coef, self.chosen_, x.shape[1]), bias)


class L1Decoder(LinearDecoder[L1DecoderConfig]):
    """Linear regression with an L1 penalty by stochastic gradient descent, of a whole map of units at once."""

    config_class = L1DecoderConfig

    def fit(self, x: np.ndarray, y: np.ndarray) -> Self:
        """Fit to voxels (rows, voxels) and targets (rows, units), both standardised here."""
        _, _, scaled, targets, x_scale, y_scale = _standardise(x, y)
        coef, bias = solve_lasso(
            scaled, targets, schedule=self.config.schedule(), seed=self.config.seed, device=self.config.device
        )
        return self._keep(x_scale, y_scale, coef, bias)


class ComponentRidge(LinearDecoder[ComponentRidgeConfig]):
    """Kernel ridge onto the principal components of the targets; both numbers by cross-validation over groups.

    Attributes
    ----------
    components_ : array of shape (components, units)
    alpha_ : array of shape (1,)
        The chosen penalty, relative to the number of voxels.
    """

    config_class = ComponentRidgeConfig
    components_: np.ndarray
    alpha_: np.ndarray

    def fit(self, x: np.ndarray, y: np.ndarray, groups: np.ndarray | None = None) -> Self:
        """Fit to voxels (rows, voxels), targets (rows, units) and the runs or segments (rows,) that folds keep whole.

        Voxels are standardised; targets keep their scale, as the principal components do.
        """
        x = check_features(x)
        y = checks.finite("y", np.asarray(check_targets(y, len(x))))
        x_scale = Scaling.of(x)
        n_voxels = x.shape[1]
        fit = solve_component_ridge(
            x_scale.apply(x),
            y,
            alphas=np.array(self.config.alphas) * n_voxels,
            most_components=self.config.most_components,
            folds=self.config.folds,
            groups=groups,
            device=self.config.device,
        )
        self.components_, self.alpha_ = fit.components, np.array([fit.alpha / n_voxels])
        as_given = Scaling(fit.mean, np.ones(y.shape[1]))
        return self._keep(x_scale, as_given, fit.coef @ fit.components, fit.intercept @ fit.components)


def _standardise(
    x: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, Scaling, Scaling]:
    """Return voxels and targets, both checked, both z-scored, and their scalings."""
    x = check_features(x)
    y = checks.finite("y", np.asarray(check_targets(y, len(x))))
    x_scale, y_scale = Scaling.of(x), Scaling.of(y)
    return x, y, x_scale.apply(x), y_scale.apply(y), x_scale, y_scale
