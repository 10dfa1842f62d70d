"""The diffusion model of three jobs as functions of NumPy images, and what its number of steps buys."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from monai_sasm.evaluation import figures
from monai_sasm.evaluation.context import Context, torch_device
from monai_sasm.evaluation.scoring import Case, Image, Method
from monai_sasm.evaluation.table import Row

BUNDLE = "enhance_photo_diffusion"
LATENT = "latent"  # its variant that diffuses in the space of an autoencoder
STEPS = (1, 2, 4, 10, 25, 50)
LATENT_STEPS = (1, 10)
STEPS_OF = {f"ours, {steps} step{'s' * (steps > 1)}": steps for steps in STEPS}
LATENT_STEPS_OF = {
    name.replace("ours", "ours, latent"): steps for name, steps in STEPS_OF.items() if steps in LATENT_STEPS
}


@dataclass(frozen=True)
class Enhancer:
    """A network with the methods of :class:`monai_sasm.experts.enhance.EnhanceDiffusion`.

    Args:
        network: in evaluation mode, on its device.
        device: that device.
    """

    network: Any
    device: Any = "cpu"

    def superresolve(self, image: Image, factor: int, steps: int) -> Image:
        """``(3, h, w)`` in [0, 1] -> ``(3, h * factor, w * factor)``."""
        return self._run(lambda x: self.network.superresolve(x, factor, steps=steps), image)

    def inpaint(self, image: Image, known: Image, steps: int) -> Image:
        """``(3, H, W)`` in [0, 1] with holes where ``known`` ``(1, H, W)`` is 0 -> the same without."""
        return self._run(lambda x, mask: self.network.inpaint(x, mask, steps=steps), image, known)

    def _run(self, call: Callable[..., Any], *images: Image) -> Image:
        import torch

        batches = [torch.from_numpy(np.ascontiguousarray(image, np.float32))[None] for image in images]
        with torch.inference_mode():
            result: Image = call(*(batch.to(self.device) for batch in batches))[0].float().cpu().numpy()
        return result


def enhancers(context: Context) -> tuple[Enhancer, Enhancer | None]:
    """The model, and its latent variant where that has been trained.

    Raises:
        BundleError: the bundle is not installed.
    """
    from monai_sasm.errors import BundleError

    device = torch_device(context.device)
    model = Enhancer(context.bundle(BUNDLE).network, device)
    try:
        return model, Enhancer(context.bundle(BUNDLE, LATENT).network, device)
    except BundleError:
        return model, None


def methods_over_steps(
    run: Callable[[Enhancer, int, Case], Image], model: Enhancer, latent: Enhancer | None, *, most: int = max(STEPS)
) -> list[Method]:
    """A method per number of steps, then the same of the latent variant for :data:`LATENT_STEPS`.

    Args:
        run: (model, steps, case) -> restored image.
        model: the pixel model.
        latent: left out when ``None``.
        most: largest number of steps.
    """
    named = [(name, model, steps) for name, steps in STEPS_OF.items()]
    if latent is not None:
        named += [(name, latent, steps) for name, steps in LATENT_STEPS_OF.items()]
    return [Method(name, partial(run, network, steps)) for name, network, steps in named if steps <= most]


def step_figure(
    path: Path, rows: Sequence[Row], *, levels: Sequence[str], metrics: Sequence[str], peers: Sequence[str]
) -> str:
    """Draw each metric of each level over the number of steps; what was not measured is left out.

    Args:
        path: PNG to write.
        rows: of a table, one per method.
        levels: whose panels come first.
        metrics: a panel for each.
        peers: names of rows without steps, drawn as dashed lines.
    """
    named = {row.method: row for row in rows}
    panels: list[figures.StepPanel] = []
    for level in levels:
        for metric in metrics:
            measured = {
                name: row.scores[level][metric] for name, row in named.items() if metric in row.scores.get(level, {})
            }
            line = {count: measured[name] for name, count in STEPS_OF.items() if name in measured}
            if line:
                others = {name: measured[name] for name in peers if name in measured}
                panels.append(figures.StepPanel(f"{metric}, {level}", line, others))
    seconds = {count: named[name].seconds for name, count in STEPS_OF.items() if name in named}
    return figures.step_curves(path, panels, {count: value for count, value in seconds.items() if value})
