"""``inpaint``: holes in photos, by class of mask; what was measured must come back to the last bit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np

from monai_sasm.evaluation import figures
from monai_sasm.evaluation.context import Context
from monai_sasm.evaluation.data import data_hash, files, photo
from monai_sasm.evaluation.metrics import as_8_bit, psnr, ssim
from monai_sasm.evaluation.perceptual import PerceptualDistances
from monai_sasm.evaluation.sampling_steps import Enhancer, enhancers, methods_over_steps, step_figure
from monai_sasm.evaluation.scoring import Case, Gain, Image, Method, score
from monai_sasm.evaluation.table import Row, Table, merged

PROTOCOL = "inpaint"
PHOTOS = 20  # of bsds500/val, each with one mask of every class
SWEEP = 3  # photos on which the number of steps is varied
SQUARE = 64  # pixels, side of the one hole that is not from the data
THICK = 6.0  # pixels, median distance of a hole's pixels from known ones, above which it is a block and no stroke
SHARES = (0.2, 0.4)  # of the image, between the classes of strokes
CLASSES = ("strokes below 20 %", "strokes 20 to 40 %", "strokes above 40 %", "block")
SHOWN = ("input", "biharmonic", "ours, 1 step", "ours, 10 steps")
GAIN = Gain("PSNR hole")
DEFINITIONS = {
    "PSNR hole": "dB, all channels, of the 8-bit result in the hole",
    "SSIM hole": "Gaussian 11x11, sigma 1.5, mean of channels and of the windows centred in the hole",
    "outside": "largest change of a known pixel, grey levels of 255; must be 0",
    "seconds": "median wall clock per photo of all classes, on this machine, which may be busy",
    **GAIN.definition,
}


class ChangedPixelsError(ValueError):
    """A method changed pixels that were measured."""


def run(context: Context) -> Table:
    """A level per class of masks, and one of all classes on the few photos on which the number of steps is varied."""
    photos = files(context.data / "natural" / "bsds500" / "val", "*.jpg", context.limit or PHOTOS)
    masks = files(context.data / "inpainting_masks", "*.png")
    model, latent = enhancers(context)
    perceptual = PerceptualDistances()
    cases = holed_cases(photos, masks)
    few = [path.stem for path in photos[:SWEEP]]
    together = f"all classes, {len(few)} photos"
    swept = [replace(case, name=f"{case.name} {case.level}", level=together) for case in cases if case.name in few]

    def measure_all(case: Case, image: Image) -> dict[str, float]:
        return {**measure(case, image), **perceptual(case.clean, as_8_bit(image))}

    peers = [
        Method("input", lambda case: case.degraded, note="holes in the mean colour of the known pixels"),
        Method("membrane", membrane, note="Laplace's equation, solved by multigrid: what ours starts from"),
    ]
    if context.peers:
        settings = f"scikit-image {version('scikit-image')}, inpaint_biharmonic"
        peers.append(Method("biharmonic", biharmonic, settings, note=settings))
    # the bare network: a restorer is not told what is known, and takes no number of steps
    over_steps = [*peers, *methods_over_steps(_restore, model, latent)]
    once = [*peers, *methods_over_steps(_restore, model, latent, most=1)]
    rows = merged(
        [
            *score(PROTOCOL, cases, once, measure=measure_all, cache=context.cache, gain=GAIN),
            *score(PROTOCOL, swept, over_steps, measure=measure_all, cache=context.cache, gain=GAIN),
        ]
    )
    require_untouched(rows)
    shown = [method for method in over_steps if method.name in SHOWN]
    path = context.output / f"{PROTOCOL}.png"
    return Table(
        PROTOCOL,
        data_hash=data_hash([*photos, *masks]),
        definitions={**DEFINITIONS, **perceptual.definitions()},
        rows=rows,
        flags=(
            *context.limited(),
            f"first {len(photos)} photos of bsds500/val, as large as the mask; photo k has mask k of each class",
            f"classes: a block where hole pixels are more than {THICK:g} pixels from known ones (median), "
            "else strokes by the share of the image that is missing; the mask files hold strokes only, so one block is "
            f"added: a centred square of {SQUARE} pixels",
            f"steps are varied on the first {len(few)} photos of each class",
            *(() if latent else ("the latent variant has no weights yet",)),
        ),
        figures=(
            _pictures(path, cases, shown),
            step_figure(
                path.with_name(f"{PROTOCOL}-steps.png"),
                rows,
                levels=[together],
                metrics=("PSNR hole", "SSIM hole", "VGG19-n", "LPIPS"),
                peers=("biharmonic", "ours, latent, 1 step"),
            ),
        ),
    )


def holed_cases(photos: Sequence[Path], masks: Sequence[Path]) -> list[Case]:
    """Each photo with one mask of every class; ``facts["known"]`` ``(1, H, W)`` is 1 where measured."""
    known_by_class: dict[str, list[Image]] = {name: [] for name in CLASSES}
    read = [read_mask(path) for path in masks]
    for known in [*read, centred_square(*read[0].shape[1:])]:
        known_by_class[mask_class(known)].append(known)
    cases = []
    for level, choice in known_by_class.items():
        for number, path in enumerate(photos if choice else ()):
            known = choice[number % len(choice)]
            clean = middle(photo(path), known.shape[1], known.shape[2])
            mean = clean[:, known[0] > 0].mean(1)[:, None, None]
            holed = np.where(known > 0, clean, mean)
            cases.append(Case(path.stem, level, clean=clean, degraded=holed, facts={"known": known}))
    return cases


def mask_class(known: Image) -> str:
    """One of :data:`CLASSES`, for a mask ``(1, H, W)``, 1 where measured."""
    from scipy.ndimage import distance_transform_edt

    hole = known[0] == 0
    if hole.all() or not hole.any():
        raise ValueError("a mask must have holes and known pixels, this one has only one of them")
    if np.median(distance_transform_edt(hole)[hole]) > THICK:
        return CLASSES[-1]
    return CLASSES[int(np.searchsorted(SHARES, hole.mean(), side="right"))]


def read_mask(path: Path) -> Image:
    """A mask file as ``(1, H, W)``: white is known (1), black is a hole (0)."""
    from monai_sasm.io.photo.photo import read  # a mask is no photo, and may be of dots

    return (read(path).array[:1] > 0.5).astype(np.float32)


def centred_square(height: int, width: int, side: int = SQUARE) -> Image:
    """A mask ``(1, H, W)`` whose one hole is a square in the middle."""
    known = np.ones((1, height, width), np.float32)
    middle(known, side, side)[:] = 0
    return known


def middle(image: Image, height: int, width: int) -> Image:
    """View of the central ``(C, height, width)`` of an image that is at least as large."""
    if image.shape[1] < height or image.shape[2] < width:
        raise ValueError(f"photos must be at least as large as the masks, {height} x {width}; got {image.shape[1:]}")
    top, left = (image.shape[1] - height) // 2, (image.shape[2] - width) // 2
    return image[:, top : top + height, left : left + width]


def measure(case: Case, image: Image) -> dict[str, float]:
    """Quality of the 8-bit result in the hole, and the change outside of the result as it came."""
    hole = case.facts["known"][0] == 0
    rounded = as_8_bit(image)
    change = float(np.abs(image - case.clean)[:, ~hole].max())
    return {
        "PSNR hole": psnr(case.clean[:, hole], rounded[:, hole], 1.0),
        "SSIM hole": ssim(case.clean, rounded, 1.0, where=hole),
        "outside": 255 * change if change == change else float("inf"),  # NaN would be left out of the mean
    }


def require_untouched(rows: Sequence[Row]) -> None:
    """Raise where a method changed what was measured.

    Raises:
        ChangedPixelsError: naming the method and the class of masks.
    """
    for row in rows:
        for level, scores in row.scores.items():
            if scores["outside"] != 0:
                raise ChangedPixelsError(
                    f"inpainting must give known pixels back to the last bit; {row.method!r} changed them by up to "
                    f"{scores['outside']:.3g} grey levels (mean over the photos of {level!r})"
                )


def biharmonic(case: Case) -> Image:
    """Smoothest surface through the known pixels (Damelin & Hoang 2018), as scikit-image computes it."""
    from skimage.restoration import inpaint_biharmonic

    # in double precision: the equations are badly conditioned in wide holes
    filled = inpaint_biharmonic(case.degraded.astype(np.float64), case.facts["known"][0] == 0, channel_axis=0)
    return filled.astype(np.float32)


def membrane(case: Case) -> Image:
    """Holes filled with the solution of Laplace's equation."""
    import torch

    from monai_sasm.experts.filling import fill_holes

    batch, known = (torch.from_numpy(part)[None] for part in (case.degraded, case.facts["known"]))
    filled: Image = fill_holes(batch, known)[0].numpy()
    return filled


def _restore(model: Enhancer, steps: int, case: Case) -> Image:
    return model.inpaint(case.degraded, case.facts["known"], steps)


def _pictures(path: Path, cases: Sequence[Case], methods: Sequence[Method]) -> str:
    """A line per class: each method's result, then the photo; the middle of another photo in every line."""
    levels = list(dict.fromkeys(case.level for case in cases))
    shown = {}
    for line, level in enumerate(levels):
        members = [case for case in cases if case.level == level]
        case = members[line % len(members)]
        side = min(figures.CROP, *case.clean.shape[1:])
        for method in methods:
            image = method.restore(case)
            name = f"{level}\n{method.name}, {measure(case, image)['PSNR hole']:.2f} dB"
            shown[name] = middle(image, side, side)
        shown[f"{level}\nphoto"] = middle(case.clean, side, side)
    return figures.panels(path, shown, columns=len(methods) + 1)
