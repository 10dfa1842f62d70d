"""One pass answers all labels; a network that embeds its label is asked once for each."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from monai_sasm.diffusion.guidance import OptionalLabel
from monai_sasm.diffusion.label_heads import LabelHeads

LABELS = 4


class Shades(nn.Module):
    """Label y deviates by ``(y - 3) / 10`` from ``x + 0.3``, the prediction for the last; counts its passes."""

    def __init__(self) -> None:
        super().__init__()
        self.passes = 0

    def forward(self, x: Tensor, timesteps: Tensor, context: Tensor | None = None) -> Tensor:
        self.passes += len(x)
        deviations = [torch.full_like(x, (label - 3) / 10) for label in range(LABELS - 1)]
        return torch.cat([*deviations, x + 0.3], 1)


class Embedded(Shades):
    """The same for a label of each image."""

    def forward(  # type: ignore[override]
        self, x: Tensor, timesteps: Tensor, context: Tensor | None = None, class_labels: Tensor | None = None
    ) -> Tensor:
        assert class_labels is not None
        self.passes += len(x)
        return x + class_labels.view(-1, 1, 1, 1) / 10


@pytest.mark.parametrize(("inner", "passes"), [(LabelHeads(Shades(), LABELS), 2), (Embedded(), 6)])
def test_several_labels_of_an_image_are_answered_in_their_order(inner: nn.Module, passes: int) -> None:
    network, x, t = OptionalLabel(inner, LABELS - 1), torch.rand(2, 3, 4, 4), torch.tensor([5, 9])
    labels = torch.tensor([[0, 2, 1], [3, 0, 2]])
    counted = inner.network if isinstance(inner, LabelHeads) else inner
    counted.passes = 0
    predicted = network(x, t, class_labels=labels)
    assert counted.passes == passes
    torch.testing.assert_close(predicted, x[:, None] + labels.view(2, 3, 1, 1, 1) / 10)
    torch.testing.assert_close(network(x, t, class_labels=labels[:, 1]), x + labels[:, 1].view(2, 1, 1, 1) / 10)
    torch.testing.assert_close(network(x, t), x + 0.3)


def test_heads_without_labels_are_refused() -> None:
    with pytest.raises(ValueError, match="class_labels are missing"):
        LabelHeads(Shades(), LABELS)(torch.rand(1, 3, 4, 4), torch.tensor([1]))
    with pytest.raises(ValueError, match="labels must be at least 1"):
        LabelHeads(Shades(), 0)
