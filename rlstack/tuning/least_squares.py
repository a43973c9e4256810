"""Linear least squares with coefficients that cannot be negative, and how sure each of them is. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

# Coefficients whose estimates move against each other this closely are not told apart by the data.
CONFOUNDED = 0.98


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """y = sum of value * column."""

    values: Mapping[str, float]  # 0 for a column that the data give nothing to
    errors: Mapping[str, float]  # standard errors of those above 0
    confounded: tuple[tuple[str, str], ...]  # pairs of columns that were not told apart
    residual: float  # root mean square, in the unit of y


def least_squares(columns: Mapping[str, Sequence[float]], y: Sequence[float]) -> Fit:
    """The non-negative coefficients with the least squares.

    There are few columns: of all subsets, ordinary least squares of that subset is taken which is the best of
    those without a negative coefficient (Lawson and Hanson 1974, chapter 23: the solution is one of these).
    """
    names, target = list(columns), np.asarray(y, float)
    matrix = np.array([columns[name] for name in names], float).T
    best: tuple[float, tuple[int, ...], np.ndarray] = (float(target @ target), (), np.zeros(0))
    for size in range(1, len(names) + 1):
        for subset in combinations(range(len(names)), size):
            solution = np.linalg.lstsq(matrix[:, subset], target, rcond=None)[0]
            loss = float(((matrix[:, subset] @ solution - target) ** 2).sum())
            if (solution >= 0).all() and loss < best[0]:
                best = (loss, subset, solution)
    loss, subset, solution = best
    covariance = _covariance(matrix[:, subset], loss)
    errors = np.sqrt(np.diag(covariance))
    return Fit(
        values=dict.fromkeys(names, 0.0)
        | {names[i]: float(v) for i, v in zip(subset, solution, strict=True)},
        errors={names[i]: float(error) for i, error in zip(subset, errors, strict=True)},
        confounded=tuple(
            (names[subset[i]], names[subset[j]])
            for i, j in combinations(range(len(subset)), 2)
            if abs(covariance[i, j]) > CONFOUNDED * errors[i] * errors[j] > 0
        ),
        residual=math.sqrt(loss / len(target)),
    )


def _covariance(matrix: np.ndarray, loss: float) -> np.ndarray:
    """Of the coefficients; the usual estimate of the noise from what is left over."""
    num_rows, num_columns = matrix.shape
    variance = loss / max(1, num_rows - num_columns)
    return np.linalg.pinv(matrix.T @ matrix) * variance
