"""Labels in diffusion: the label 'none', and classifier-free guidance."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from monai_sasm.diffusion.denoising import Denoiser
from monai_sasm.diffusion.label_heads import LabelHeads
from monai_sasm.diffusion.sampling import Denoise


class OptionalLabel(nn.Module):
    """Lets a label-conditioned network be called without labels, or with several for each image.

    Without labels it is given the label 'none'.

    Args:
        network: MONAI's ``DiffusionModelUNet`` with ``num_class_embeds``, one called alike, or
            :class:`~monai_sasm.diffusion.label_heads.LabelHeads`.
        none: index of the label 'none', one beyond the classes.
    """

    def __init__(self, network: nn.Module, none: int) -> None:
        super().__init__()
        self.network, self.none = network, none

    def forward(
        self, x: Tensor, timesteps: Tensor, context: Tensor | None = None, class_labels: Tensor | None = None
    ) -> Tensor:
        """``x`` ``(B, C, H, W)``, ``timesteps`` ``(B,)``, ``class_labels`` ``(B,)``, ``(B, L)`` or None.

        Returns ``(B, C, H, W)``, or ``(B, L, C, H, W)`` for L labels asked about the same image.
        """
        labels = torch.full((len(x),), self.none, device=x.device) if class_labels is None else class_labels
        predicted: Tensor
        if labels.ndim == 1 or self.shared:
            predicted = self.network(x, timesteps=timesteps, context=context, class_labels=labels)
            return predicted
        asked = labels.shape[1]
        x, timesteps = (part.repeat_interleave(asked, 0) for part in (x, timesteps))
        context = None if context is None else context.repeat_interleave(asked, 0)
        predicted = self.network(x, timesteps=timesteps, context=context, class_labels=labels.flatten())
        return predicted.unflatten(0, (-1, asked))

    @property
    def shared(self) -> bool:
        """Whether one pass answers all labels."""
        return isinstance(self.network, LabelHeads)


def guided(denoiser: Denoiser, label: Tensor, none: int, scale: float) -> Denoise:
    r"""Classifier-free guidance (Ho & Salimans 2022): :math:`x_0^\varnothing + s (x_0^{label} - x_0^\varnothing)`.

    The estimate of the clean image is linear in the predicted noise, so this equals guidance of the noise prediction.

    Args:
        denoiser: label-conditioned.
        label: class index ``(B,)``.
        none: index of the label 'none'.
        scale: 0 ignores the label, 1 is the plain conditional model, more exaggerates what the label changes.
    """
    if scale == 1:
        return lambda x, t: denoiser.denoise(x, t, label)
    if scale == 0:
        return lambda x, t: denoiser.denoise(x, t, torch.full_like(label, none))

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        both = torch.cat([label, torch.full_like(label, none)])
        labelled, plain = denoiser.denoise(x.repeat(2, 1, 1, 1), t.repeat(2), both).chunk(2)
        return plain + scale * (labelled - plain)

    return denoise
