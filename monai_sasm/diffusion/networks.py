"""Adapters: the call of MONAI's ``DiffusionModelUNet`` for every diffusion network, and any image size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from monai_sasm.functional.tiling import pad_to_multiple


class UnshuffledUNet(nn.Module):
    """Runs a network on 2 x 2 (or larger) pixel blocks folded into channels; any height and width fit.

    Folding is lossless and costs a quarter of the work of full-resolution convolutions (as in
    :class:`monai_sasm.experts.unet.ResidualUNet`).

    Args:
        network: called as ``network(x, timesteps=, context=, class_labels=)``, with ``in_channels * patch**2`` inputs.
        patch: side of a block in pixels; 1 only pads.
        levels: resolutions of the network; sides are padded to a multiple of ``patch * 2**(levels - 1)``.
    """

    def __init__(self, network: nn.Module, patch: int = 2, levels: int = 3) -> None:
        super().__init__()
        if patch < 1 or levels < 1:
            raise ValueError(f"patch and levels must be at least 1, got patch={patch}, levels={levels}")
        self.network, self.patch, self.multiple = network, patch, patch * 2 ** (levels - 1)

    def forward(
        self, x: Tensor, timesteps: Tensor, context: Tensor | None = None, class_labels: Tensor | None = None
    ) -> Tensor:
        """``x`` ``(B, C, H, W)``, ``timesteps`` ``(B,)`` -> ``(B, C_out, H, W)``."""
        height, width = x.shape[-2:]
        folded = F.pixel_unshuffle(pad_to_multiple(x, self.multiple), self.patch)
        out = self.network(folded, timesteps=timesteps, context=context, class_labels=class_labels)
        return F.pixel_shuffle(out, self.patch)[..., :height, :width]


class DiffusersUNet(nn.Module):
    """A diffusers ``UNet2DModel`` with MONAI's call.

    Args:
        pretrained: name or folder of a published model, such as ``google/ddpm-celebahq-256``, loaded through the normal
            hub cache; empty builds one with random weights from ``config``. Safetensors only, which hold no code.
        revision: commit of the model on the hub, so that nothing is read that is uploaded there later. A folder has
            none.
        config: arguments of ``UNet2DModel``.

    Raises:
        FileNotFoundError: ``pretrained`` is neither in the cache, nor to be had from the hub, nor such a folder.
        ValueError: it is a name on the hub without ``revision``, or ``config`` is given with it.
    """

    def __init__(self, pretrained: str = "", revision: str = "", **config: Any) -> None:
        super().__init__()
        from monai_sasm.optional import diffusers

        if pretrained and config:
            raise ValueError(
                f"a pretrained model brings its own config; drop {sorted(config)} or pretrained={pretrained!r}"
            )
        if pretrained and not (revision or Path(pretrained).is_absolute() or Path(pretrained).is_dir()):
            raise ValueError(
                f"{pretrained!r} is no folder, and a model of the hub is read at one commit: say which by revision=, "
                "as its page there lists them, or name a folder written by UNet2DModel.save_pretrained"
            )
        model = diffusers().UNet2DModel
        self.unet: nn.Module = _published(model, pretrained, revision) if pretrained else model(**config)

    def forward(
        self, x: Tensor, timesteps: Tensor, context: Tensor | None = None, class_labels: Tensor | None = None
    ) -> Tensor:
        """``x`` ``(B, C, H, W)``, ``timesteps`` ``(B,)`` -> ``(B, C, H, W)``; ``context`` is not supported."""
        if context is not None:
            raise ValueError("UNet2DModel has no cross-attention; pass conditions as input channels")
        predicted: Tensor = self.unet(x, timesteps, class_labels=class_labels, return_dict=False)[0]
        return predicted


def _published(model: Any, name: str, revision: str) -> nn.Module:
    try:
        network: nn.Module = model.from_pretrained(name, revision=revision or None, use_safetensors=True)
    except (OSError, ValueError) as error:  # what diffusers and the hub's client raise, offline as online
        raise FileNotFoundError(
            f"no UNet2DModel {name!r} here as safetensors: fetch it into the hub's cache on a machine with internet "
            f"access (hf download {name}{f', revision {revision}' if revision else ''}), or name a folder written by "
            "UNet2DModel.save_pretrained"
        ) from error
    return network
