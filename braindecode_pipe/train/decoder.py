"""The decoder: from windows to embeddings, in scikit-learn's manners."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError

from braindecode_pipe.errors import DataError, ModelError
from braindecode_pipe.train.linear import LINEAR, fit_logistic, fit_ridge, moments, softmax
from braindecode_pipe.train.selection import cosine, identification_accuracy

DECODERS = (*LINEAR, "mlp", "conv")
_LOOP = ("loss", "lr", "weight_decay", "batch_size", "epochs", "patience", "monitor", "seed")


class BrainDecoder(BaseEstimator):
    """Windows of brain signals to embeddings of what was presented.

    ``ridge``: himalaya, penalty chosen by leaving out groups. ``logistic``: multinomial over the
    stimuli of the training, a prediction is the sum of their embeddings weighted by probability (a
    convex combination, Norouzi et al. 2014, arXiv 1312.5650, so that other stimuli can be ranked).
    ``mlp``: :class:`~braindecode_pipe.networks.voxels.VoxelMLP`. ``conv``:
    :class:`~braindecode_pipe.networks.convolution.ConvEncoder`. All scale their input by moments
    of the training rows: per feature, or per person and sensor for ``conv``.

    Parameters
    ----------
    decoder : {"ridge", "logistic", "mlp", "conv"}
    alphas : penalties that ridge chooses from
    network : mapping, optional
        Arguments of the network's constructor.
    loss, lr, weight_decay, batch_size, epochs, patience, monitor, seed
        See :func:`~braindecode_pipe.fitting.loop.fit`.
    n_steps : int
        Steps of the target, whose columns then go step by step: ``(n, n_steps * n_features)``.

    Attributes
    ----------
    hyper_ : what was chosen inside the training rows
    log_ : records per epoch (networks)
    fit_ : LinearFit (ridge and logistic)
    network_ : torch module (mlp and conv)
    """

    def __init__(
        self,
        decoder: str = "ridge",
        *,
        alphas: Sequence[float] = (0.1, 1.0, 10.0, 100.0, 1000.0, 10000.0, 100000.0),
        network: Mapping[str, Any] | None = None,
        loss: str = "clip",
        lr: float = 3e-4,
        weight_decay: float = 0.0,
        batch_size: int = 128,
        epochs: int = 50,
        patience: int = 10,
        monitor: str = "retrieval",
        seed: int = 0,
        n_steps: int = 1,
    ) -> None:
        self.decoder = decoder
        self.alphas = alphas
        self.network = network
        self.loss = loss
        self.lr = lr
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.epochs = epochs
        self.patience = patience
        self.monitor = monitor
        self.seed = seed
        self.n_steps = n_steps

    def fit(
        self,
        X: Any,
        Y: np.ndarray,
        groups: np.ndarray | None = None,
        *,
        stimuli: np.ndarray | None = None,
        validation: np.ndarray | None = None,
        subjects: np.ndarray | None = None,
        positions: np.ndarray | None = None,
        masks: np.ndarray | None = None,
    ) -> BrainDecoder:
        """Fit to windows and the embeddings of their stimuli.

        Parameters
        ----------
        X : (n, n_sensors, n_times) or (n, n_features)
            An array, or for networks a view that reads when indexed.
        Y : (n, n_features)
        groups : (n,), optional
            Rows of one group are never divided when something is chosen; default: each its own.
        stimuli : (n,), optional
            Which stimulus each row shows; default: rows of ``Y`` that are equal.
        validation : (n,) bool, optional
            Rows that only tell networks when to stop. Linear decoders train on them.
        subjects : (n,) int, optional
            Person of each row, for ``conv``; default: one person.
        positions, masks : (n_subjects, n_sensors, 2) and (n_subjects, n_sensors) bool, optional
            Layout of the sensors, for ``conv``; default: a circle, all present.

        Raises
        ------
        DataError
            When shapes do not fit together or values are not finite.
        ModelError
            When the decoder is unknown or cannot be fitted to so little.
        """
        if self.decoder not in DECODERS:
            raise ModelError(
                "unknown decoder", expected=" | ".join(DECODERS), found=repr(self.decoder)
            )
        Y = np.asarray(Y, np.float64)
        X = X if hasattr(X, "shape") else np.asarray(X)
        self._check(X, Y)
        n = len(Y)
        groups = np.arange(n) if groups is None else np.asarray(groups)
        first, stimuli = number_stimuli(Y if stimuli is None else np.asarray(stimuli))
        self.shape_ = tuple(
            int(v) for v in (X.shape[1:] if len(X.shape) == 3 else (*X.shape[1:], 1))
        )
        self.n_features_out_ = Y.shape[1]
        self.log_: list[dict[str, float]] = []
        if self.decoder in LINEAR:
            flat = np.asarray(X, np.float64).reshape(n, -1)
            self.mean_, self.scale_ = moments(flat)
            flat = (flat - self.mean_) / self.scale_
            if self.decoder == "ridge":
                self.fit_ = fit_ridge(flat, Y, groups, self.alphas)
                self.hyper_ = {"alpha": self.fit_.penalty}
            else:
                self.fit_ = fit_logistic(flat, stimuli, groups)
                self.class_embeddings_ = Y[first]
                self.hyper_ = {"C": self.fit_.penalty}
            return self
        held = np.zeros(n, bool) if validation is None else np.asarray(validation, bool)
        return self._fit_network(X, Y, stimuli, held, subjects, positions, masks)

    def _fit_network(self, X, Y, stimuli, held, subjects, positions, masks) -> BrainDecoder:
        from braindecode_pipe.train import networks

        if self.decoder == "conv":
            self._set_layout(positions, masks)
            who = np.zeros(len(Y), np.int64) if subjects is None else np.asarray(subjects, np.int64)
            self.mean_, self.scale_ = networks.sensor_moments(
                X, np.flatnonzero(~held), who, len(self.masks_)
            )
        else:
            self.positions_ = self.masks_ = None
            X = np.asarray(X).reshape(len(Y), *self.shape_)
            self.mean_, self.scale_ = moments(X[~held].reshape(int((~held).sum()), -1))
        steps = 1 if self.decoder == "mlp" else self.n_steps
        self.network_, self.arguments_ = networks.build(
            self.decoder,
            self.shape_,
            Y.shape[1] // steps,
            steps,
            1 if self.masks_ is None else len(self.masks_),
            self.network or {},
            self.seed,
        )
        targets = np.asarray(Y, np.float32)
        fit = networks.train(
            self.network_,
            self._inputs(X, subjects),
            networks.split_steps(targets, steps) if steps > 1 else targets,
            stimuli,
            held,
            {
                name: getattr(self, name)
                for name in (
                    "loss",
                    "lr",
                    "weight_decay",
                    "batch_size",
                    "epochs",
                    "patience",
                    "monitor",
                    "seed",
                )
            },
        )
        self.log_, self.hyper_ = fit.log, {"epoch": fit.best_epoch}
        return self

    def _set_layout(self, positions: np.ndarray | None, masks: np.ndarray | None) -> None:
        from braindecode_pipe.fitting.sensors import plane_layout

        n_sensors = self.shape_[0]
        if positions is None:
            positions = plane_layout(np.full((n_sensors, 3), np.nan))[None]
        self.positions_ = np.asarray(positions, np.float32)
        shape = self.positions_.shape[:2]
        self.masks_ = np.ones(shape, bool) if masks is None else np.asarray(masks, bool)
        if shape[1] != n_sensors or self.masks_.shape != shape:
            raise DataError(
                "layout and windows disagree",
                expected=f"positions (n_subjects, {n_sensors}, 2), masks (n_subjects, {n_sensors})",
                found=f"{self.positions_.shape}, {self.masks_.shape}",
            )

    def _inputs(self, X: Any, subjects: np.ndarray | None) -> Any:
        from braindecode_pipe.train.networks import Inputs

        who = np.zeros(len(X), np.int64) if subjects is None else np.asarray(subjects, np.int64)
        return Inputs(self.decoder, X, self.mean_, self.scale_, who, self.positions_, self.masks_)

    def _check(self, X: Any, Y: np.ndarray) -> None:
        if Y.ndim != 2 or len(X) != len(Y) or not len(Y):
            raise DataError(
                "windows and embeddings do not fit together",
                expected="X (n, ...) and Y (n, n_features), n > 0",
                found=f"X {tuple(X.shape)}, Y {Y.shape}",
            )
        if not np.isfinite(Y).all():
            raise DataError(
                "embeddings hold values that are not finite",
                expected="finite numbers",
                found=f"{int((~np.isfinite(Y)).any(1).sum())} rows with NaN or infinity",
            )
        if Y.shape[1] % self.n_steps:
            raise DataError(
                "the target cannot be divided into steps",
                expected=f"a multiple of n_steps = {self.n_steps} columns",
                found=str(Y.shape[1]),
            )

    def predict(self, X: Any, subjects: np.ndarray | None = None) -> np.ndarray:
        """Embeddings ``(n, n_features)`` float32 of windows.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        DataError
            When windows have another shape than those of the fit.
        """
        if not hasattr(self, "mean_"):
            raise NotFittedError("call fit before predict")
        X = X if hasattr(X, "shape") else np.asarray(X)
        if int(np.prod(X.shape[1:])) != int(np.prod(self.shape_)):
            raise DataError(
                "windows of another shape than those of the fit",
                expected=f"(n, {self.shape_[0]}, {self.shape_[1]})",
                found=str(tuple(X.shape)),
            )
        if self.decoder in ("mlp", "conv"):
            from braindecode_pipe.train.networks import predict

            return predict(self.network_, self._inputs(X, subjects))
        flat = (np.asarray(X, np.float64).reshape(len(X), -1) - self.mean_) / self.scale_
        out = flat @ self.fit_.weights + self.fit_.intercept
        if self.decoder == "logistic":
            out = softmax(out) @ self.class_embeddings_
        return out.astype(np.float32)

    def retrieve(
        self, X: Any, candidates: np.ndarray, k: int = 5, subjects: np.ndarray | None = None
    ) -> np.ndarray:
        """Positions ``(n, k)`` of the candidates nearest by cosine, nearest first."""
        scores = cosine(self.predict(X, subjects), candidates)
        return np.argsort(-scores, axis=1, kind="stable")[:, :k]

    def score(self, X: Any, Y: np.ndarray, subjects: np.ndarray | None = None) -> float:
        """Identification accuracy among the different rows of ``Y``."""
        first, truth = number_stimuli(np.asarray(Y, np.float64))
        return identification_accuracy(self.predict(X, subjects), np.asarray(Y)[first], truth)


def number_stimuli(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First row of each different value, and the number of the value of every row."""
    axis = 0 if values.ndim == 2 else None
    values = values if values.dtype != object else values.astype(str)
    _, first, number = np.unique(values, axis=axis, return_index=True, return_inverse=True)
    return first, number.reshape(-1).astype(np.int64)
