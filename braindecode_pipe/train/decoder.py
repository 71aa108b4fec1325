"""The decoder: from windows to embeddings, in scikit-learn's manners."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from braindecode_pipe.errors import DataError
from braindecode_pipe.train import people
from braindecode_pipe.train.linear import LINEAR, fit_logistic, fit_ridge, moments, softmax
from braindecode_pipe.train.moments import input_moments
from braindecode_pipe.train.saved import Pretrained
from braindecode_pipe.train.selection import cosine, identification_accuracy
from braindecode_pipe.train.settings import check_settings, check_targets, one_layout


class Estimates(np.ndarray):
    """Embeddings ``(n, n_features)`` that a decoder predicts: an array that can be looked up."""

    def retrieve(self, candidates: np.ndarray, k: int = 5) -> np.ndarray:
        """Positions ``(n, k)`` of the candidates nearest by cosine, nearest first."""
        scores = cosine(self, candidates)
        return np.argsort(-scores, axis=1, kind="stable")[:, :k]


@dataclass(eq=False, repr=False)
class BrainDecoder(Pretrained, BaseEstimator):
    """Windows of brain signals to embeddings of what was presented.

    ``BrainDecoder("conv").fit(windows, embeddings).predict(others).retrieve(candidates)``.

    ``ridge``: himalaya, penalty chosen by leaving out groups. ``logistic``: multinomial over the
    stimuli of the training, a prediction is the sum of their embeddings weighted by probability (a
    convex combination, Norouzi et al. 2014, arXiv 1312.5650, so that other stimuli can be ranked).
    The others are networks: ``mlp`` and ``mixer`` of :mod:`~braindecode_pipe.networks.voxels`,
    ``conv`` and ``conv-image`` of :mod:`~braindecode_pipe.networks.convolution`, ``nice``,
    ``atm`` and ``eegnet`` of :mod:`~braindecode_pipe.networks.compact`. Where ``conv-image`` has
    two heads (``loss="clip+mse"``), predictions are those of the head that retrieves.

    All scale their input by moments of the training rows: per feature (``ridge``, ``logistic``,
    ``mlp``), per person and feature (``mixer``), or per person and sensor.

    Parameters
    ----------
    decoder : one of ``DECODERS``
    alphas : penalties that ridge chooses from
    network : mapping, optional
        Arguments of the network's constructor; those that the data decide cannot be given.
    layout : {"plane", "space"}
        Where networks see the sensors of ``Windows``, see :mod:`~braindecode_pipe.fitting.sensors`.
    loss, logit_scale, learn_scale, loss_weight
        See :class:`~braindecode_pipe.fitting.losses.Objective`.
    lr, weight_decay, schedule, warmup, clip_norm, precision, batch_size, micro_batch, epochs, \
    patience, monitor, seed
        See :class:`~braindecode_pipe.fitting.loop.Settings`, and ``train.networks.loop_settings``.
    augment : mapping, optional
        What is done to training windows of networks: ``shift_s`` (needs ``Windows`` or a view),
        ``channel_dropout``, ``noise``, ``mixup``; see
        :class:`~braindecode_pipe.recipe.AugmentSection`.
    n_steps : int
        Steps of the target, whose columns then go step by step: ``(n, n_steps * n_features)``.

    Attributes
    ----------
    hyper_ : what was chosen inside the training rows
    log_ : records per epoch (networks)
    fit_ : LinearFit (ridge and logistic)
    network_, arguments_ : torch module, and the arguments of its constructor
    people_ : person -> names of sensors, or None after a fit to arrays
    trained_ : (n_subjects,) bool, who had training rows (networks)
    """

    decoder: str = "ridge"
    _: KW_ONLY
    alphas: Sequence[float] = (0.1, 1.0, 10.0, 100.0, 1000.0, 10000.0, 100000.0)
    network: Mapping[str, Any] | None = None
    layout: str = "plane"
    loss: str = "clip"
    logit_scale: float | None = None
    learn_scale: bool = True
    loss_weight: float = 0.75
    lr: float = 3e-4
    weight_decay: float = 0.0
    schedule: str = "auto"
    warmup: float = 0.0
    clip_norm: float = 0.0
    precision: str = "float32"
    batch_size: int = 128
    micro_batch: int = 0
    epochs: int = 50
    patience: int = 10
    monitor: str = "retrieval"
    seed: int = 0
    augment: Mapping[str, Any] | None = None
    n_steps: int = 1

    @property
    def one_layout(self) -> bool:
        """Whether all people must have the same sensors."""
        return one_layout(self.decoder, self.network or {})

    @property
    def two_heads(self) -> bool:
        """Whether a head for regression stands beside the one that predictions come from."""
        return bool(getattr(self, "arguments_", {}).get("two_heads"))

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
        sensors: Mapping[str, Sequence[str]] | None = None,
        folder: str | Path | None = None,
        on_epoch: Callable[[dict[str, float]], None] | None = None,
        on_batch: Callable[[int, int, float], None] | None = None,
    ) -> BrainDecoder:
        """Fit to windows and the embeddings of their stimuli.

        Parameters
        ----------
        X : Windows, or (n, n_sensors, n_times) or (n, n_features)
            An array, or for networks a view that reads when indexed. ``Windows`` bring people,
            sensors and positions along; rows of the other arguments are its events, and those
            without a valid window are left out.
        Y : (n, n_features)
        groups : (n,), optional
            Rows of one group are never divided when something is chosen; default: each its own.
        stimuli : (n,), optional
            Which stimulus each row shows; default: rows of ``Y`` that are equal.
        validation : (n,) bool, optional
            Rows that only tell networks when to stop. Linear decoders train on them.
        subjects : (n,) int, optional
            Person of each row; default: one person.
        positions, masks : (n_subjects, n_sensors, 2 or 3) and (n_subjects, n_sensors) bool
            Layout of the sensors; default: a circle, all present.
        sensors : person -> names of sensors, optional
            By which people are known again in ``Windows``.
        folder, on_epoch, on_batch : see :func:`~braindecode_pipe.fitting.loop.fit`

        Raises
        ------
        DataError
            When shapes do not fit together, values are not finite, or people differ in sensors
            where the decoder has weights for sensors.
        ModelError
            When a setting is impossible, or the decoder cannot be fitted to so little.
        RecipeError
            When the network has no such argument.
        """
        check_settings(self.get_params())
        view = people.as_view(X)
        Y, groups, stimuli, validation = (
            people.of_rows(values, X, view) for values in (Y, groups, stimuli, validation)
        )
        Y, X = np.asarray(Y, np.float64), people.as_windows(X, view)
        check_targets(X, Y, self.n_steps)
        if view is not None and subjects is None:
            given = people.of_windows(view, self.layout)
        else:
            given = people.of_arrays(X, subjects, positions, masks, sensors)
        if self.one_layout:
            people.check_one_layout(given.layouts, self.decoder)
        n = len(Y)
        groups = np.arange(n) if groups is None else np.asarray(groups)
        first, stimuli = number_stimuli(Y if stimuli is None else np.asarray(stimuli))
        self.shape_ = tuple(int(v) for v in X.shape[1:])
        self.n_features_out_ = Y.shape[1]
        self.positions_, self.masks_ = given.positions, given.masks
        self.people_ = given.sensors
        self.log_: list[dict[str, float]] = []
        if self.decoder in LINEAR:
            return self._fit_linear(np.asarray(X, np.float64), Y, groups, stimuli, first)
        held = np.zeros(n, bool) if validation is None else np.asarray(validation, bool)
        return self._fit_network(
            X, Y, stimuli, held, given.who, folder=folder, on_epoch=on_epoch, on_batch=on_batch
        )

    def _fit_linear(self, X, Y, groups, stimuli, first) -> BrainDecoder:
        flat = X.reshape(len(X), -1)
        self.mean_, self.scale_ = moments(flat)
        flat = (flat - self.mean_) / self.scale_
        if self.decoder == "logistic":
            self.fit_ = fit_logistic(flat, stimuli, groups)
            self.class_embeddings_ = Y[first]
        else:
            self.fit_ = fit_ridge(flat, Y, groups, self.alphas)
        self.hyper_ = {"alpha" if self.decoder == "ridge" else "C": self.fit_.penalty}
        return self

    def _fit_network(self, X, Y, stimuli, held, who, **observers) -> BrainDecoder:
        from braindecode_pipe.fitting.world import best_device
        from braindecode_pipe.train import networks

        rows = np.flatnonzero(~held)
        self.trained_ = np.bincount(who[rows], minlength=len(self.masks_)) > 0
        self.mean_, self.scale_ = input_moments(self.decoder, X, rows, who, self.masks_)
        sizes = networks.Sizes(
            *self.shape_, Y.shape[1] // self.n_steps, self.n_steps, self.masks_,
            self.positions_.shape[2],
        )  # fmt: skip
        self.network_, self.arguments_ = networks.build(
            self.decoder, sizes, self.network or {}, self.seed, self.loss
        )
        networks.refuse_strangers(self.network_, self.trained_, who, self.people_)
        self.network_.to(best_device())
        targets = networks.split_steps(self.decoder, Y.astype(np.float32), self.n_steps)
        fit = networks.train(
            self.network_, self._inputs(X, who), targets, stimuli, held, self.get_params(),
            **observers,
        )  # fmt: skip
        self.log_, self.hyper_ = fit.log, {"epoch": fit.best_epoch}
        return self

    def _inputs(self, X: Any, who: np.ndarray) -> Any:
        from braindecode_pipe.train.networks import Inputs

        device = next(self.network_.parameters()).device
        return Inputs(
            self.decoder, X, self.mean_, self.scale_, who, self.positions_, self.masks_, device
        )

    def predict(self, X: Any, subjects: np.ndarray | None = None) -> Estimates:
        """Embeddings ``(n, n_features)`` float32 of windows, with a method ``retrieve``.

        Parameters
        ----------
        X : as in :meth:`fit`; of ``Windows`` the valid ones, in order
        subjects : (n,) int, optional
            Person of each row by the numbers of the fit. In ``Windows`` people are known by name.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        DataError
            When windows have another shape than those of the fit.
        ModelError
            When a network with weights for each person has none for somebody.
        """
        check_is_fitted(self, "mean_")
        view = people.as_view(X)
        if view is not None and subjects is None:
            anyone = self.decoder in (*LINEAR, "mlp")
            subjects = people.number_people(view, self.people_, anyone)
        X = people.as_windows(X, view)
        n_sensors, n_times = self.shape_
        fewer = view is not None and X.shape[1] < n_sensors
        if len(X.shape) != 3 or X.shape[2] != n_times or not (fewer or X.shape[1] == n_sensors):
            raise DataError(
                "windows of another shape than those of the fit",
                expected=f"(n, {n_sensors}, {n_times})",
                found=str(tuple(X.shape)),
            )
        if self.decoder not in LINEAR:
            from braindecode_pipe.train import networks

            who = people.numbers(subjects, len(X), len(self.masks_))
            networks.refuse_strangers(self.network_, self.trained_, who, self.people_)
            return networks.predict(self.network_, self._inputs(X, who)).view(Estimates)
        flat = (np.asarray(X, np.float64).reshape(len(X), -1) - self.mean_) / self.scale_
        out = flat @ self.fit_.weights + self.fit_.intercept
        if self.decoder == "logistic":
            out = softmax(out) @ self.class_embeddings_
        return out.astype(np.float32).view(Estimates)

    def score(self, X: Any, Y: np.ndarray, subjects: np.ndarray | None = None) -> float:
        """Identification accuracy among the different rows of ``Y``, of which there must be two."""
        Y = np.asarray(people.of_rows(Y, X, people.as_view(X)), np.float64)
        first, truth = number_stimuli(Y)
        if len(first) < 2:
            raise DataError(
                "there is nothing to choose from",
                expected="at least two different embeddings in Y",
                found=str(len(first)),
            )
        return identification_accuracy(self.predict(X, subjects), Y[first], truth)


def number_stimuli(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First row of each different value, and the number of the value of every row."""
    axis = 0 if values.ndim == 2 else None
    values = values if values.dtype != object else values.astype(str)
    _, first, number = np.unique(values, axis=axis, return_index=True, return_inverse=True)
    return first, number.reshape(-1).astype(np.int64)
