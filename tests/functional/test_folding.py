"""Folding batch normalisation changes a network's time, not its answers."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import nn

from monai_sasm.bundles import load
from monai_sasm.functional.folding import fold_batch_norms
from monai_sasm.restoration.restorer import Restorer


def norms(network: nn.Module) -> list[nn.Module]:
    return [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]


def test_the_gate_in_use_is_folded_and_answers_as_its_weights_say() -> None:
    gate = Restorer("cpu").gate
    assert gate is not None
    used, plain = gate.network, load("gate_mobilenet").network  # as it is exported, extended and trained on
    assert not norms(used)
    assert len(norms(plain)) == 52
    convolution = used.trunk[3].conv[0][0].weight
    assert convolution.is_contiguous(memory_format=torch.channels_last)
    image, sigma = torch.rand(1, 3, 72, 96, generator=torch.Generator().manual_seed(0)), torch.full((1, 1, 72, 96), 0.1)
    with torch.inference_mode():
        wanted = plain(image, sigma)
        torch.testing.assert_close(used(image, sigma), wanted, atol=1e-4, rtol=1e-4)
    assert wanted.std() > 0.1


def test_what_is_not_behind_a_convolution_stays() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.BatchNorm2d(3))
    image = torch.rand(8, 2, 9, 9)
    network(image)  # statistics
    folded = deepcopy(network)
    fold_batch_norms(folded)
    assert norms(folded) == [folded[3]]
    torch.testing.assert_close(folded(image), network.eval()(image))
