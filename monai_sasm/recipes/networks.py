"""Networks that several bundles have in common but for a few numbers."""

from __future__ import annotations

from collections.abc import Callable

from monai.networks.schedulers import DDIMScheduler, RFlowScheduler
from torch import nn

from monai_sasm.diffusion.process import Diffusion, Flow
from monai_sasm.experts.dit import DiT
from monai_sasm.experts.generative import GenerativeRestorer
from monai_sasm.experts.windows import Windowed
from monai_sasm.types import ImageBatch, NoiseMap

TIMES = 1000


def transformer(
    process: str,
    size: int,
    scale: float,
    preset: str = "T",
    depth: int | None = None,
    width: int | None = None,
    heads: int | None = None,
    patch: int = 4,
    noise_estimator: Callable[[ImageBatch], NoiseMap] | None = None,
    neighbours: int = 0,
    guard: nn.Module | None = None,
    steps: int = 1,
    zero_init: bool = False,
) -> GenerativeRestorer:
    """A transformer that restores grey slices by sampling what they lack.

    It sees ``z_t``, the image, the image's detail, the noise map if there is an estimator, and the neighbours.

    Args:
        process: ``diffusion`` for a DiT (Peebles and Xie 2023) with the velocity as target and a cosine schedule that
            ends in pure noise; ``flow`` for a SiT (Ma et al. 2024), a rectified flow.
        size: pixels; side of the windows the transformer looks at.
        preset, depth, width, heads, patch: see :class:`~monai_sasm.experts.dit.DiT`.
        scale, noise_estimator, neighbours, guard, steps, zero_init: see
            :class:`~monai_sasm.experts.generative.GenerativeRestorer`.

    Raises:
        ValueError: another process.
    """
    if process == "diffusion":
        schedule = DDIMScheduler(TIMES, schedule="cosine", prediction_type="v_prediction", clip_sample=False)
        chosen: Diffusion | Flow = Diffusion(schedule)
    elif process == "flow":
        chosen = Flow(RFlowScheduler(TIMES))
    else:
        raise ValueError(f"process must be diffusion or flow, got {process!r}")
    channels = 3 + (noise_estimator is not None) + 2 * neighbours
    network = DiT(channels, 1, preset=preset, depth=depth, width=width, heads=heads, patch=patch)
    return GenerativeRestorer(
        Windowed(network, size),
        chosen,
        noise_estimator=noise_estimator,
        scale=scale,
        steps=steps,
        guard=guard,
        zero_init=zero_init,
        neighbours=neighbours,
    )
