"""What the protocols of raindrops share: metrics on full photos, rendered drops, methods that are compared."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from monai_sasm.evaluation.context import Context
from monai_sasm.evaluation.data import photo
from monai_sasm.evaluation.metrics import delta_e, gradient_ratio, luma, psnr, ssim
from monai_sasm.evaluation.restoring import expert_with_weights, our_methods
from monai_sasm.evaluation.scoring import Case, Image, Method, degrade
from monai_sasm.types import Modality

EXPERT = "raindrop_photo_unet"
DEFINITIONS = {
    "PSNR Y": "dB, ITU-R BT.601 luma as in MATLAB, range 255, full image",
    "SSIM Y": "of that luma, Gaussian 11x11, sigma 1.5",
    "PSNR RGB": "dB, all channels, full image",
    "SSIM RGB": "mean of channels",
    "delta E": "mean CIE 1976 colour difference",
    "gradient": "mean gradient magnitude over that of the clean photo",
}


def measure(case: Case, image: Image) -> dict[str, float]:
    """All metrics of :data:`DEFINITIONS`."""
    clean, restored = luma(case.clean), luma(image)
    return {
        "PSNR Y": psnr(clean, restored, 1.0),
        "SSIM Y": ssim(clean, restored, 1.0),
        "PSNR RGB": rgb_psnr(case, image),
        "SSIM RGB": ssim(case.clean, image, 1.0),
        "delta E": delta_e(case.clean, image),
        "gradient": gradient_ratio(case.clean, image),
    }


def rgb_psnr(case: Case, image: Image) -> float:
    """PSNR over all channels, dB."""
    return psnr(case.clean, image, 1.0)


def rendered_cases(paths: Sequence[Path]) -> list[Case]:
    """Drops on photos, seed = number of the photo; ``facts["mask"]`` is the share of light from water ``(1, H, W)``."""
    from monai_sasm.degradations.raindrop import Raindrop

    cases = []
    for number, path in enumerate(paths):
        clean = photo(path)
        wet, params = degrade(Raindrop(), clean[None], seed=number)
        cases.append(Case(path.stem, "", clean=clean, degraded=wet[0], facts={"mask": params.mask[0].numpy()}))
    return cases


def methods(context: Context) -> list[Method]:
    """Input, the shipped expert, the expert that never saw a real drop, and the default pipeline."""
    found = [Method("input", lambda case: case.degraded), *our_methods(context.restorer, Modality.PHOTO, EXPERT)]
    synthetic = _synthetic_weights(context)
    if synthetic is not None:
        name = f"expert {EXPERT}, synthetic only"
        note = "trained on rendered drops only"
        method = expert_with_weights(context.restorer, Modality.PHOTO, EXPERT, weights=synthetic, name=name, note=note)
        found.insert(2, method)
    return found


def _synthetic_weights(context: Context) -> Path | None:
    from monai_sasm.bundles import shipped_folder

    given = context.weights.get("synthetic")
    beside = shipped_folder() / EXPERT / "models" / "model_synthetic.pt"
    return given or (beside if beside.is_file() and context.bundles is None else None)
