"""Training of label-conditioned diffusion models: label dropout, and labels held against each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from monai.inferers import DiffusionInferer
from torch import Tensor, nn
from torch.utils.data import Dataset

from monai_sasm.datasets.labelled import LabelledImages
from monai_sasm.training.diffusion import PrepareDenoising
from monai_sasm.transforms.augmentation import flip_and_shift


class LabelledDataset(Dataset[dict[str, Tensor]]):
    """``image`` ``(3, H, W)`` in [0, 1] and ``label``, in the order of ``data``.

    Args:
        data: which may be sorted by class.
        limit: take only so many, evenly spaced.
    """

    def __init__(self, data: LabelledImages, limit: int | None = None) -> None:
        count = len(data) if limit is None else min(limit, len(data))
        self.data = data[np.linspace(0, len(data) - 1, count).round().astype(int)]

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """One image, not augmented; :class:`PrepareLabelled` does that for a batch at a time."""
        image = torch.from_numpy(self.data.images[index]).float() / 255
        return {"image": image, "label": torch.tensor(self.data.labels[index])}


class PrepareLabelled(PrepareDenoising):
    """Image in [-1, 1], the noise to be predicted, and for the inferer ``noise``, ``timesteps`` and ``class_labels``.

    Args:
        scheduler: MONAI scheduler.
        classes: number of classes; the label 'none' has this index.
        dropout: share of images whose label is replaced by 'none', 0 to 1.
        wrong: how many further, wrong labels are asked about each image; see :class:`ContrastiveNoiseLoss`.
        shift: largest displacement of an image in pixels; ``None`` leaves images as they are (validation).
        times: first and last time index drawn.
        skew: above 1 prefers little noise, see :class:`~monai_sasm.training.diffusion.PrepareDenoising`.
        seed: of all draws.
        repeat: start the draws anew after so many images: the same noise in every validation round.
    """

    def __init__(
        self,
        scheduler: Any,
        classes: int,
        dropout: float = 0.1,
        wrong: int = 0,
        shift: int | None = 3,
        times: tuple[int, int] = (0, 999),
        skew: float = 1.0,
        seed: int = 0,
        repeat: int | None = None,
    ) -> None:
        super().__init__(scheduler, times, skew, seed)
        if not 0 <= dropout <= 1 or not 0 <= wrong < classes:
            raise ValueError(f"dropout must be in [0, 1] and wrong below {classes} classes, got {dropout} and {wrong}")
        self.classes, self.dropout, self.wrong, self.shift = classes, dropout, wrong, shift
        self.seed, self.repeat, self.seen = seed, repeat, 0

    def __call__(
        self,
        batchdata: Mapping[str, Tensor],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> Any:
        if self.repeat is not None and not 0 < self.seen < self.repeat:
            self.seen = 0
            self.draws.generator.manual_seed(self.seed)
        self.seen += len(batchdata["image"])
        images = 2 * batchdata["image"] - 1
        if self.shift is not None:
            images = flip_and_shift(images, self.shift, self.draws.generator)
        noise, times, labels = self.get_noise(images), self.get_timesteps(images), self.get_labels(batchdata["label"])
        images, noise, times, labels = (
            part.to(device, non_blocking=non_blocking) for part in (images, noise, times, labels)
        )
        return images, noise, (), {"noise": noise, "timesteps": times, "class_labels": labels}

    def get_labels(self, labels: Tensor) -> Tensor:
        """Labels ``(B, 1 + wrong)``: the true one or 'none', then different wrong ones."""
        dropped = torch.rand(len(labels), generator=self.draws.generator) < self.dropout
        first = torch.where(dropped, self.classes, labels)
        order = torch.rand(len(labels), self.classes - 1, generator=self.draws.generator).argsort(1)[:, : self.wrong]
        return torch.cat([first[:, None], (labels[:, None] + 1 + order) % self.classes], 1)


class LabelledDiffusionInferer(DiffusionInferer):
    """MONAI's inferer, which adds the noise, for networks that take a label as well."""

    def __call__(  # type: ignore[override]
        self, inputs: Tensor, diffusion_model: nn.Module, noise: Tensor, timesteps: Tensor, class_labels: Tensor
    ) -> Tensor:
        """Predict the noise.

        Args:
            inputs: clean images ``(B, C, H, W)``.
            diffusion_model: :class:`~monai_sasm.diffusion.guidance.OptionalLabel`, or called alike.
            noise: shape of ``inputs``.
            timesteps: ``(B,)``.
            class_labels: ``(B, L)``, L labels asked about the same noisy image.

        Returns:
            ``(B, L * C, H, W)``, the predictions for the labels one after the other.
        """

        def conditioned(x: Tensor, timesteps: Tensor, context: Tensor | None = None) -> Tensor:
            predicted: Tensor = diffusion_model(x, timesteps=timesteps, context=context, class_labels=class_labels)
            return predicted.flatten(1, 2)

        return super().__call__(inputs, conditioned, noise, timesteps)  # type: ignore[arg-type]


class ContrastiveNoiseLoss(nn.Module):
    r"""Squared error of the predicted noise, and cross-entropy of the labels by their errors.

    With :math:`e_y = \|\epsilon - \epsilon_\theta(x_t, t, y)\|^2`, the negative errors :math:`-e_y / 2` are the labels'
    log-likelihoods up to a constant; plain noise prediction makes the true label's error small, the cross-entropy
    makes it smaller than the wrong labels'. Only the first label's error enters the first term.

    Args:
        contrast: weight of the cross-entropy beside the mean squared error; 0 leaves the latter alone.
    """

    def __init__(self, contrast: float = 0.0) -> None:
        super().__init__()
        if contrast < 0:
            raise ValueError(f"contrast must not be negative, got {contrast}")
        self.contrast = contrast

    def forward(self, prediction: Tensor, noise: Tensor) -> Tensor:
        """``prediction`` ``(B, L * C, H, W)``, right label first; ``noise`` ``(B, C, H, W)``."""
        predictions = prediction.unflatten(1, (-1, noise.shape[1]))
        squared = (predictions - noise[:, None]).square()
        error = squared[:, 0].mean()
        if not self.contrast or predictions.shape[1] == 1:
            return error
        target = torch.zeros(len(noise), dtype=torch.long, device=noise.device)
        return error + self.contrast * nn.functional.cross_entropy(-squared.sum((2, 3, 4)) / 2, target)


def ranked_by_error(output: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """From a MONAI evaluator's output to ignite's ``Accuracy``: scores ``(B, L)`` of labels asked, and the right one.

    The labels' order is reversed, so that the right one comes last and a tie counts as an error.
    """
    noise = output["label"]
    errors = (output["pred"].unflatten(1, (-1, noise.shape[1])) - noise[:, None]).square().mean((2, 3, 4))
    return -errors.flip(1), torch.full((len(noise),), errors.shape[1] - 1, device=noise.device)
