"""Classifier-free guidance of the clean image is guidance of the noise; networks can be called without a label."""

from __future__ import annotations

import pytest
import torch
from monai.networks.schedulers import DDIMScheduler
from torch import Tensor, nn

from monai_sasm.diffusion.denoising import Denoiser
from monai_sasm.diffusion.guidance import OptionalLabel, guided

NONE = 3


class Shades(nn.Module):
    """Predicts as noise a constant that depends on the label; remembers the labels asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[list[int]] = []

    def forward(
        self, x: Tensor, timesteps: Tensor, context: Tensor | None = None, class_labels: Tensor | None = None
    ) -> Tensor:
        assert class_labels is not None
        self.asked.append(class_labels.tolist())
        return torch.zeros_like(x) + 0.1 * class_labels.view(-1, 1, 1, 1)


def denoiser() -> Denoiser:
    return Denoiser(Shades(), DDIMScheduler(num_train_timesteps=100, clip_sample=False))


@pytest.mark.parametrize("scale", [0.0, 1.0, 2.5])
def test_guidance_extrapolates_the_noise(scale: float) -> None:
    model, x = denoiser(), torch.rand(2, 3, 4, 4)
    t, label = torch.tensor([10, 60]), torch.tensor([0, 2])
    found = guided(model, label, NONE, scale)(x, t)
    noise = 0.1 * (NONE + scale * (label - NONE)).view(-1, 1, 1, 1)
    kept = model.schedule[t].view(-1, 1, 1, 1)
    torch.testing.assert_close(found, (x - (1 - kept).sqrt() * noise) / kept.sqrt())


@pytest.mark.parametrize(("scale", "labels"), [(0.0, [[3, 3]]), (1.0, [[0, 2]]), (2.0, [[0, 2, 3, 3]])])
def test_only_what_is_needed_is_asked(scale: float, labels: list[list[int]]) -> None:
    model = denoiser()
    guided(model, torch.tensor([0, 2]), NONE, scale)(torch.rand(2, 3, 4, 4), torch.tensor([5, 5]))
    assert model.network.asked == labels


def test_no_label_is_the_label_none() -> None:
    network = OptionalLabel(Shades(), NONE)
    x, t = torch.zeros(2, 3, 4, 4), torch.tensor([1, 1])
    assert float(network(x, t).mean()) == pytest.approx(0.3)
    assert float(network(x, t, class_labels=torch.tensor([1, 1])).mean()) == pytest.approx(0.1)
