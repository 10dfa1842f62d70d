"""Smooth volumes with edges, with a place in the body, for transforms that move or brighten them."""

from __future__ import annotations

import numpy as np
import torch
from monai.data import MetaTensor


def oblique(spacing: tuple[float, float, float], degrees: float = 20.0) -> np.ndarray:
    """An affine turned about the third axis, with an origin."""
    turn = np.radians(degrees)
    rotation = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = rotation * np.array(spacing)
    affine[:3, 3] = (-30.0, 12.0, 5.0)
    return affine


def head(
    shape: tuple[int, int, int] = (40, 44, 20),
    spacing: tuple[float, float, float] = (2.0, 2.0, 4.0),
    shift: tuple[float, float, float] = (0.0, 0.0, 0.0),
    degrees: float = 0.0,
) -> np.ndarray:
    """Two ellipsoids and a ventricle, 0 to about 700; ``shift`` (mm) and ``degrees`` move it within the first plane."""
    centre = [(size - 1) / 2 * side for size, side in zip(shape, spacing, strict=True)]
    axes = [np.arange(size) * side - middle for size, side, middle in zip(shape, spacing, centre, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    turn = np.radians(degrees)
    x, y = x - shift[0], y - shift[1]
    x, y, z = np.cos(turn) * x + np.sin(turn) * y, -np.sin(turn) * x + np.cos(turn) * y, z - shift[2]

    def ellipsoid(cx: float, cy: float, rx: float, ry: float, rz: float) -> np.ndarray:
        radius = np.sqrt(((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 + (z / rz) ** 2)
        return 1 / (1 + np.exp(10 * (radius - 1)))

    whole = 500 * ellipsoid(0, 0, 26, 34, 60) + 200 * ellipsoid(10, 12, 7, 9, 50) - 300 * ellipsoid(-8, -6, 5, 10, 40)
    return np.asarray(whole, np.float32)


def tensor(array: np.ndarray, affine: np.ndarray) -> MetaTensor:
    return MetaTensor(torch.from_numpy(np.ascontiguousarray(array, np.float32))[None], affine=torch.from_numpy(affine))
