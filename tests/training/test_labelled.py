"""Labels in diffusion training: dropped, held against wrong ones, and pictured."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from monai.networks.schedulers import DDIMScheduler
from torch import Tensor, nn

from monai_sasm.datasets.draws import begin_epoch
from monai_sasm.datasets.labelled import LabelledImages
from monai_sasm.diffusion.guidance import OptionalLabel
from monai_sasm.training.labelled import (
    ContrastiveNoiseLoss,
    LabelledDataset,
    LabelledDiffusionInferer,
    PrepareLabelled,
    ranked_by_error,
)

SCHEDULER = DDIMScheduler(num_train_timesteps=1000, clip_sample=False)
BATCH = {"image": torch.rand(64, 3, 8, 8), "label": torch.arange(64) % 5}


class Echo(nn.Module):
    """Predicts the noisy image plus a hundredth of the label."""

    def forward(
        self, x: Tensor, timesteps: Tensor, context: Tensor | None = None, class_labels: Tensor | None = None
    ) -> Tensor:
        assert class_labels is not None
        return x + class_labels.view(-1, 1, 1, 1) / 100


def test_the_right_label_comes_first_and_wrong_ones_differ() -> None:
    _, _, _, keywords = PrepareLabelled(SCHEDULER, 5, dropout=0.0, wrong=3)(BATCH)
    labels = keywords["class_labels"]
    assert labels.shape == (64, 4)
    assert torch.equal(labels[:, 0], BATCH["label"])
    assert all(len(set(row.tolist())) == 4 for row in labels)
    assert int(labels.max()) == 4
    counts = torch.bincount(labels[:, 1:].flatten(), minlength=5)
    assert int(counts.min()) > 20, "every class serves as a wrong one"


def test_a_share_of_the_labels_is_dropped() -> None:
    prepare = PrepareLabelled(SCHEDULER, 5, dropout=0.25)
    dropped = torch.cat([prepare(BATCH)[3]["class_labels"][:, 0] == 5 for _ in range(10)])
    assert float(dropped.float().mean()) == pytest.approx(0.25, abs=0.06)


def test_noise_and_times_reach_the_inferer() -> None:
    images, target, arguments, keywords = PrepareLabelled(SCHEDULER, 5, shift=None, times=(10, 20))(BATCH)
    assert arguments == ()
    torch.testing.assert_close(images, 2 * BATCH["image"] - 1)
    assert torch.equal(target, keywords["noise"])
    assert 10 <= int(keywords["timesteps"].min()) <= int(keywords["timesteps"].max()) <= 20


def test_validation_sees_the_same_noise_every_round() -> None:
    prepare = PrepareLabelled(SCHEDULER, 5, shift=None, repeat=128, seed=3)
    rounds = []
    for epoch in range(2):
        begin_epoch(0, epoch)  # of the training between
        rounds.append([prepare(BATCH)[1] for _ in range(2)])
    assert torch.equal(rounds[0][0], rounds[1][0])
    assert torch.equal(rounds[0][1], rounds[1][1])
    assert not torch.equal(rounds[0][0], rounds[0][1])


def test_every_label_is_asked_about_the_same_noisy_image() -> None:
    inputs, noise = torch.rand(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    times, labels = torch.tensor([3, 70]), torch.tensor([[0, 4], [2, 1]])
    predicted = LabelledDiffusionInferer(SCHEDULER)(inputs, OptionalLabel(Echo(), 5), noise, times, labels)
    noisy = SCHEDULER.add_noise(original_samples=inputs, noise=noise, timesteps=times)
    assert predicted.shape == (2, 6, 4, 4)
    torch.testing.assert_close(predicted[:, :3], noisy + labels[:, 0].view(2, 1, 1, 1) / 100)
    torch.testing.assert_close(predicted[:, 3:], noisy + labels[:, 1].view(2, 1, 1, 1) / 100)


def test_contrast_compares_errors_as_log_likelihoods() -> None:
    noise = torch.zeros(1, 1, 2, 2)
    prediction = torch.tensor([0.1, 0.5]).view(1, 2, 1, 1).expand(-1, -1, 2, 2)
    plain = ContrastiveNoiseLoss()(prediction, noise)
    assert float(plain) == pytest.approx(0.01), "only the right label's error"
    excess = (4 * 0.25 - 4 * 0.01) / 2
    expected = 0.01 + 0.3 * math.log(1 + math.exp(-excess))
    assert float(ContrastiveNoiseLoss(0.3)(prediction, noise)) == pytest.approx(expected)
    with pytest.raises(ValueError, match="contrast"):
        ContrastiveNoiseLoss(-1)


def test_ties_do_not_count_as_right() -> None:
    noise = torch.zeros(3, 1, 2, 2)
    errors = torch.tensor([[0.1, 0.2, 0.3], [0.2, 0.1, 0.3], [0.2, 0.2, 0.2]])
    scores, right = ranked_by_error({"pred": errors[:, :, None, None].expand(-1, -1, 2, 2), "label": noise})
    assert (scores.argmax(1) == right).tolist() == [True, False, False]


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="wrong below 5"):
        PrepareLabelled(SCHEDULER, 5, wrong=5)


def test_some_images_are_of_all_classes_though_they_lie_sorted() -> None:
    labels = np.arange(100) // 10
    data = LabelledImages(np.zeros((100, 3, 8, 8), np.uint8), labels, tuple("abcdefghij"), "made")
    assert [int(item["label"]) for item in items(LabelledDataset(data, limit=10))] == list(range(10))
    assert len(LabelledDataset(data, limit=1000)) == len(LabelledDataset(data)) == 100


def items(dataset: LabelledDataset) -> list[dict[str, Tensor]]:
    return [dataset[index] for index in range(len(dataset))]
