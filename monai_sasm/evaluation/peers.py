"""Methods of others, run side by side: BM3D, scikit-image and SimpleITK, each told the noise level.

A peer has one strength relative to the noise level. It is chosen per level by PSNR on a validation image that is in no
test set, so that a peer is not judged by a default meant for another kind of image. BM3D on white noise needs no
tuning: its strength is 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_sasm.evaluation.metrics import psnr
from monai_sasm.evaluation.scoring import Case, Method, ResultCache, fingerprint, probe

Image = NDArray[np.float32]
Denoiser = Callable[[Image, float, float], Image]

BM3D_SUBSET = 4  # images per level; BM3D takes about 40 s per megapixel and channel pair


@dataclass(frozen=True)
class Peer:
    """One method of the field.

    Args:
        name: as printed.
        denoise: (image ``(C, H, W)`` of order 1, sigma, strength) -> image.
        package: distribution whose version is part of the result.
        strengths: candidates; one means no tuning.
        meaning: what the strength is.
        slow: takes seconds to minutes per image, so that a protocol may run it on a subset.
    """

    name: str
    denoise: Denoiser
    package: str
    strengths: Sequence[float]
    meaning: str
    slow: bool = False


def methods(
    names: Sequence[str],
    validation: Sequence[Case],
    cache: ResultCache,
    *,
    scale: float = 1.0,
    offset: float = 0.0,
    strengths: Mapping[str, Sequence[float]] | None = None,
    quality: Callable[[Case, Image], float] | None = None,
    first: int | None = BM3D_SUBSET,
    tuned_at: Mapping[str, str] | None = None,
) -> list[Method]:
    """The named peers, tuned on ``validation`` (one case per level; levels are tuned separately).

    A strength that was tuned at a single level is used at all of them.

    Args:
        names: keys of :data:`PEERS`.
        validation: cases that no test set contains.
        cache: where the outcome of the tuning is kept, too.
        scale: images are divided by this (after ``offset``) to bring them to order 1 for the peers.
        offset: added before scaling.
        strengths: other candidates than :data:`PEERS` has.
        quality: what is tuned for, larger is better; PSNR over all pixels when missing.
        first: images per level for the peers that are too slow for all; ``None`` for all.
        tuned_at: level of the cases -> level of ``validation``, where the two have other names.

    Raises:
        ValueError: there are several strengths and nothing to choose them by; or, when a method runs, a level at which
            it was not tuned although others were.
    """
    found = []
    for name in names:
        peer = replace(PEERS[name], strengths=tuple((strengths or {}).get(name) or PEERS[name].strengths))
        found.append(
            _method(
                peer,
                validation,
                cache,
                scale=scale,
                offset=offset,
                quality=quality or (lambda case, image: psnr(case.clean, image, scale)),
                first=first if peer.slow else None,
                tuned_at=tuned_at or {},
            )
        )
    return found


def slice_by_slice(restore: Callable[[Case], Image], margin: int = 0) -> Callable[[Case], Image]:
    """A peer for single slices on each slice of a stack, but for ``margin`` at each end, which stay as they are."""

    def restored(case: Case) -> Image:
        if len(case.degraded) == 1:
            return restore(case)
        image = case.degraded.copy()
        for index in range(margin, len(image) - margin):
            one = slice(index, index + 1)
            image[one] = restore(replace(case, clean=case.clean[one], degraded=case.degraded[one], facts={}))
        return image

    return restored


def _method(
    peer: Peer,
    validation: Sequence[Case],
    cache: ResultCache,
    *,
    scale: float,
    offset: float,
    quality: Callable[[Case, Image], float],
    first: int | None,
    tuned_at: Mapping[str, str],
) -> Method:
    try:
        release = version(peer.package)
    except PackageNotFoundError as error:
        raise ImportError(f"the peer {peer.name!r} needs {peer.package!r}: pip install {peer.package}") from error

    def run(case: Case, strength: float) -> Image:
        image = (case.degraded + offset) / scale
        return (peer.denoise(image, case.sigma / scale, strength) * scale - offset).astype(np.float32)

    candidates = tuple(peer.strengths)
    acting = fingerprint(scale, offset, _trial(peer))
    chosen: dict[str, float] = {}
    for case in validation if len(candidates) > 1 else ():
        aim = f"{quality(case, probe(case)):.4g}"
        key = f"tuning|{peer.name}|{candidates}|{scale}|{release}|{case.level}|" + fingerprint(
            case.clean, case.degraded, case.sigma, case.facts, aim, acting
        )
        found = cache.get(key)
        if found is None:
            found = {"strength": max(candidates, key=lambda strength: quality(case, run(case, strength)))}
            cache.put(key, found)
        chosen[case.level] = found["strength"]
    if not chosen and len(candidates) > 1:
        raise ValueError(f"{peer.name} has several strengths and no validation image to choose one by")
    note = f"{peer.package} {release}, {peer.meaning} " + (
        ", ".join(f"{value:g} at {level}" for level, value in chosen.items()) or f"{candidates[0]:g}"
    )

    def strength_at(level: str) -> float:
        if len(chosen) < 2:
            return next(iter(chosen.values()), candidates[0])
        name = tuned_at.get(level, level)
        if name not in chosen:
            raise ValueError(f"{peer.name} was tuned at {', '.join(chosen)}, not at {name!r}")
        return chosen[name]

    def restore(case: Case) -> Image:
        return run(case, strength_at(case.level))

    # a figure shows what the table has just measured: minutes of BM3D need not run twice
    remembered = lru_cache(maxsize=None)(restore) if peer.slow else restore
    return Method(peer.name, remembered, settings=f"{note}, {acting}", first=first, note=note)


def _trial(peer: Peer) -> list[str]:
    """What the peer makes of small images: it tells whether its code or what that calls has changed since."""
    random, found = np.random.default_rng(0), []
    for channels in (1, 3):
        noisy = np.float32(0.5) + np.float32(0.1) * random.standard_normal((channels, 24, 24), np.float32)
        noisy[:, :, 12:] += np.float32(0.4)
        change = np.asarray(peer.denoise(noisy, 0.1, peer.strengths[0])) - noisy
        found += [f"{np.abs(change).mean():.4g}", f"{np.square(change).mean():.4g}"]
    return found


def _bm3d(image: Image, sigma: float, strength: float) -> Image:
    import bm3d

    channels_last = image.transpose(1, 2, 0).astype(np.float64)
    if image.shape[0] == 3:
        return bm3d.bm3d_rgb(channels_last, sigma * strength).transpose(2, 0, 1)
    return np.asarray(bm3d.bm3d(channels_last[..., 0], sigma * strength))[None]


def _nlm(image: Image, sigma: float, strength: float) -> Image:
    from skimage.restoration import denoise_nl_means

    options = {"h": strength * sigma, "sigma": sigma, "fast_mode": True, "patch_size": 5, "patch_distance": 6}
    if len(image) == 1:  # scikit-image drops the axis of a single channel and turns the image
        return denoise_nl_means(image[0], **options)[None]
    return denoise_nl_means(image, **options, channel_axis=0)


def _tv(image: Image, sigma: float, strength: float) -> Image:
    from skimage.restoration import denoise_tv_chambolle

    return denoise_tv_chambolle(image, weight=strength * sigma, channel_axis=0)


def _bilateral(image: Image, sigma: float, strength: float) -> Image:
    import SimpleITK

    return _each_channel(image, lambda part: SimpleITK.Bilateral(part, 2.0, strength * sigma))


def _curvature_flow(image: Image, sigma: float, strength: float) -> Image:
    import SimpleITK

    # Curvature flow moves level lines in pixels, whatever the contrast: its time is a length, not a noise level.
    iterations = max(1, round(strength))
    return _each_channel(
        image, lambda part: SimpleITK.CurvatureFlow(part, timeStep=0.125, numberOfIterations=iterations)
    )


def _curvature_diffusion(image: Image, sigma: float, strength: float) -> Image:
    import SimpleITK

    iterations = max(1, round(strength))
    return _each_channel(
        image,
        lambda part: SimpleITK.CurvatureAnisotropicDiffusion(
            part, timeStep=0.0625, conductanceParameter=3.0, numberOfIterations=iterations
        ),
    )


def _each_channel(image: Image, run: Callable[..., Any]) -> Image:
    import SimpleITK

    return np.stack(
        [SimpleITK.GetArrayFromImage(run(SimpleITK.GetImageFromArray(part.astype(np.float32)))) for part in image]
    )


PEERS = {
    peer.name: peer
    for peer in (
        Peer("BM3D", _bm3d, "bm3d", strengths=(1.0,), meaning="strength (x sigma)", slow=True),
        Peer("NLM fast", _nlm, "scikit-image", strengths=(0.4, 0.6, 0.8, 1.0), meaning="patch 5, distance 6, h/sigma"),
        Peer("TV", _tv, "scikit-image", strengths=(0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0), meaning="weight/sigma"),
        Peer("bilateral", _bilateral, "SimpleITK", strengths=(1.5, 2.5, 4.0, 6.0), meaning="domain 2 px, range/sigma"),
        Peer(
            "curvature flow",
            _curvature_flow,
            "SimpleITK",
            strengths=(2, 4, 8, 16, 32),
            meaning="time step 0.125, iterations",
        ),
        Peer(
            "curvature diffusion",
            _curvature_diffusion,
            "SimpleITK",
            strengths=(2, 5, 10, 20),
            meaning="conductance 3, iterations",
        ),
    )
}
