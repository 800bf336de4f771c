"""Linear probes: what can be read off frozen tokens by one weight per channel, and nothing more.

    tokens n d --standardise--> w . x + b --> one score a token --> average precision against the labels

A probe that does well shows that the knowledge is there *and* lies open: it cannot compute anything itself. It says
something only beside its controls: the same network with its weights shuffled, and the raw voxels of each token.
(Alain and Bengio 2016, arXiv:1610.01644.)
"""

from __future__ import annotations

import copy
import dataclasses
from typing import TYPE_CHECKING

import numpy as np
from einops import reduce
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    import torch

    from neurokd.models.teacher import Teacher

__all__ = ["LinearProbe", "average_precision", "fit_probe", "precision_recall", "shuffle_teacher", "token_labels"]


@dataclasses.dataclass(frozen=True, eq=False)
class LinearProbe:
    """A fitted probe: call it with tokens, get their scores.

    Attributes
    ----------
    weight
        (d,) of the tokens as they come, standardisation included.
    bias
        One number.
    """

    weight: NDArray[np.float64]
    bias: float

    def __call__(self, tokens: ArrayLike) -> NDArray[np.float64]:
        """Return the logits (n,) of tokens (n, d): above 0 where "yes" is more likely than "no"."""
        return np.asarray(tokens, dtype=float) @ self.weight + self.bias


def token_labels(masks: ArrayLike, *, token: tuple[int, int] = (8, 8)) -> NDArray[np.bool_]:
    """Say for each token of slices whether there is a neurite in it: at least one voxel.

    Parameters
    ----------
    masks
        Boolean slices ``n y x``, whole tokens along y and x.
    token
        Voxels (y, x) of a token.

    Returns
    -------
    NDArray[bool]
        ``n y x`` on the grid of tokens.

    Raises
    ------
    ValueError
        Not such slices.
    """
    masks = np.asarray(masks)
    if masks.ndim != 3 or masks.dtype != bool or any(n % t for n, t in zip(masks.shape[1:], token, strict=True)):
        raise ValueError(
            f"masks must be boolean slices n y x of whole tokens {token}, got {masks.dtype} of {masks.shape}"
        )
    return reduce(masks, "n (y a) (x b) -> n y x", "max", a=token[0], b=token[1])


def fit_probe(tokens: ArrayLike, labels: ArrayLike, *, penalty: float = 0.01) -> LinearProbe:
    """Fit a logistic regression on standardised tokens; the problem is convex, so there is one answer and no seed.

    Parameters
    ----------
    tokens
        (n, d). Channels that never change get weight 0.
    labels
        (n,) boolean, both values present.
    penalty
        Of the squared weights of the standardised channels, ``mean loss + penalty / 2 * |w|^2``; above 0.

    Returns
    -------
    LinearProbe

    Raises
    ------
    ValueError
        Shapes that do not fit, labels that are not boolean or all alike, a penalty that is not positive.
    """
    from scipy.optimize import minimize
    from scipy.special import expit

    x, labels = np.asarray(tokens, dtype=np.float32), np.asarray(labels)
    if x.ndim != 2 or labels.shape != x.shape[:1] or labels.dtype != bool:
        raise ValueError(
            f"tokens must be n d and labels n booleans, got {x.shape} and {labels.dtype} of {labels.shape}"
        )
    if labels.all() or not labels.any():
        raise ValueError(f"labels are all {bool(labels[0])}; a probe needs both")
    if not penalty > 0:
        raise ValueError(f"penalty is {penalty}; it must be positive")
    mean, spread = x.mean(axis=0, dtype=float), x.std(axis=0, dtype=float)
    scale = np.where(spread > 1e-6 * (np.abs(mean) + 1e-30), 1 / np.maximum(spread, 1e-30), 0)
    x = np.append((x - mean.astype(np.float32)) * scale.astype(np.float32), np.ones((len(x), 1), np.float32), axis=1)
    ridge = np.append(np.full(len(mean), penalty), 0.0)  # the bias is free

    def loss(w: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        logits = (x @ w.astype(np.float32)).astype(float)
        value = np.mean(np.logaddexp(0, logits) - labels * logits) + ridge @ w**2 / 2
        return float(value), x.T @ (expit(logits) - labels).astype(np.float32) / len(x) + ridge * w

    def curvature(w: NDArray[np.float64]) -> NDArray[np.float64]:
        share = expit(x @ w.astype(np.float32))
        root = x * np.sqrt(share * (1 - share))[:, None]
        return root.T @ root / len(x) + np.diag(ridge)  # one array twice: numpy computes half of it

    # Newton in a trust region: a few hundred channels make a small Hessian, and ten steps do what L-BFGS needs 300 for.
    options = {"gtol": 1e-5, "initial_trust_radius": 10.0}
    found = minimize(loss, np.zeros(x.shape[1]), jac=True, hess=curvature, method="trust-exact", options=options)
    weight = found.x[:-1] * scale
    return LinearProbe(weight, float(found.x[-1] - weight @ mean))


def precision_recall(scores: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Precision and recall at every threshold, from the strictest to the laxest.

    Parameters
    ----------
    scores
        (n,) numbers, higher where "yes" is likelier. Equal scores come together, in whatever order they stand.
    labels
        (n,) boolean, at least one true.

    Returns
    -------
    precision, recall
        One value for each different score, recall ascending to 1.

    Raises
    ------
    ValueError
        Shapes that do not fit, scores that are not finite, no label that is true.
    """
    scores, labels = np.asarray(scores, dtype=float), np.asarray(labels)
    if scores.ndim != 1 or labels.shape != scores.shape or labels.dtype != bool:
        raise ValueError(f"scores and labels must be (n,), got {scores.shape} and {labels.dtype} of {labels.shape}")
    if not np.isfinite(scores).all():
        raise ValueError("scores must be finite")
    if not labels.any():
        raise ValueError("no label is true: precision and recall are not defined")
    order = np.argsort(-scores)
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)  # the last of each run of equal scores
    hits = np.cumsum(labels[order])[last]
    return hits / (last + 1), hits / labels.sum()


def average_precision(scores: ArrayLike, labels: ArrayLike) -> float:
    """Average precision, ``sum (R_k - R_{k-1}) P_k`` over the thresholds: the area under the precision-recall steps.

    Unlike accuracy it is not impressed by background: scores without information get the share of true labels.

    Parameters
    ----------
    scores, labels
        As :func:`precision_recall`.

    Returns
    -------
    float
        In [0, 1].

    Raises
    ------
    ValueError
        As :func:`precision_recall`.
    """
    precision, recall = precision_recall(scores, labels)
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def shuffle_teacher(teacher: Teacher, *, generator: torch.Generator) -> Teacher:
    """Return the control for every claim about a teacher's knowledge: the same numbers, in another order.

    Each parameter tensor keeps its values and loses their places, so scale and spread of all layers stay.

    Parameters
    ----------
    teacher
        Is left as it is.
    generator
        Source of randomness, on the CPU.

    Returns
    -------
    Teacher
        Its source says that it is shuffled.
    """
    import torch

    control = copy.deepcopy(teacher)
    for parameter in control.parameters():
        places = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
        parameter.data = parameter.data.flatten()[places].reshape(parameter.shape)
    control.source = dataclasses.replace(
        teacher.source, name=f"{teacher.source.name}, weights shuffled", kind="control", sha256=""
    )
    return control
