"""Batches for the model with three jobs: shares, conditions, times and target are what was asked for."""

from __future__ import annotations

import pytest
import torch
from monai.networks.nets import AutoencoderKL
from monai.networks.schedulers import DDIMScheduler
from torch import Tensor, nn

from monai_sasm.degradations.gaussian import GaussianNoise
from monai_sasm.degradations.holes import Holes
from monai_sasm.experts.enhance import CONDITIONS, JOBS, EnhanceDiffusion
from monai_sasm.experts.latent import PhotoAutoencoder
from monai_sasm.functional.noise import NoiseEstimator
from monai_sasm.training.autoencoder import AutoencoderLoss, DrawnLatents
from monai_sasm.training.enhance import LabelledInferer, PrepareEnhancement
from monai_sasm.training.precision import Autocast

SCALES = (0.4, 0.2, 0.1, 0.3)


def scheduler(prediction: str = "v_prediction") -> DDIMScheduler:
    return DDIMScheduler(1000, schedule="cosine", prediction_type=prediction, clip_sample=False)


def expert() -> EnhanceDiffusion:
    return EnhanceDiffusion(nn.Conv2d(3 + CONDITIONS, 3, 1), scheduler(), NoiseEstimator(), scale=SCALES)


def prepare(**keywords: object) -> PrepareEnhancement:
    return PrepareEnhancement(
        expert(), scheduler(), GaussianNoise((0.1, 0.1)), Holes((0.2, 0.2), ("blobs",)), **keywords
    )


def batch(count: int = 16, size: int = 32) -> dict[str, Tensor]:
    return {"image": torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(5))}


def test_input_and_conditions_make_the_clean_photo() -> None:
    z, _, arguments, keywords = prepare(shares=(1, 1, 1, 1))(batch(), "cpu")
    condition, clean = keywords["condition"], batch()["image"]
    assert arguments == ()
    assert condition.shape == (16, CONDITIONS, 32, 32)
    scale = torch.tensor(SCALES)[keywords["label"]].view(-1, 1, 1, 1)
    torch.testing.assert_close((condition[:, :3] + 1) / 2 + scale / 2 * z, clean, atol=1e-5, rtol=0)
    known, sigma = condition[:, -2], condition[:, -1]
    for job, shown, level in zip(keywords["label"].tolist(), known.mean((1, 2)), sigma.mean((1, 2)), strict=True):
        assert float(shown) == pytest.approx(0.8 if JOBS[job] == "inpaint" else 1, abs=1e-3)
        assert float(level) == pytest.approx(0.2 if JOBS[job] == "denoise" else 0)
    assert set(keywords["label"].tolist()) == {0, 1, 2, 3}
    inpainted = keywords["label"] == 3
    assert not z[inpainted][known[inpainted][:, None].expand(-1, 3, -1, -1) > 0].any(), "known pixels lack nothing"


def test_the_target_is_the_velocity() -> None:
    z, velocity, _, keywords = prepare()(batch(), "cpu")
    kept = scheduler().alphas_cumprod[keywords["timesteps"]].view(-1, 1, 1, 1)
    torch.testing.assert_close(velocity, kept.sqrt() * keywords["noise"] - (1 - kept).sqrt() * z)


def test_jobs_and_last_times_have_their_shares() -> None:
    prepared = prepare(shares=(0.2, 0.1, 0.3, 0.4), last=0.5)
    jobs, times = [], []
    for _ in range(40):
        _, _, _, keywords = prepared(batch(64, 8), "cpu")
        jobs.append(keywords["label"])
        times.append(keywords["timesteps"])
    shares = torch.bincount(torch.cat(jobs), minlength=4) / (40 * 64)
    assert shares.tolist() == pytest.approx([0.2, 0.1, 0.3, 0.4], abs=0.03)
    drawn = torch.cat(times)
    assert float((drawn == 999).float().mean()) == pytest.approx(0.5, abs=0.03)
    others = drawn[drawn < 999].double()
    assert float(others.mean()) == pytest.approx(499, abs=25)


def test_the_same_seed_gives_the_same_batches() -> None:
    first, again, other = (prepare(seed=seed)(batch(), "cpu") for seed in (1, 1, 2))
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[1], other[1])


def test_the_inferer_hands_on_noised_input_conditions_and_label() -> None:
    class Recorder(nn.Module):
        def forward(self, x: Tensor, timesteps: Tensor, context: Tensor | None, class_labels: Tensor) -> Tensor:
            assert context is None
            self.seen = (x, timesteps, class_labels)
            return x[:, :3]

    network = Recorder()
    z, _, arguments, keywords = prepare()(batch(4), "cpu")
    result = LabelledInferer(scheduler())(z, Autocast(network, "float32"), *arguments, **keywords)
    noised = scheduler().add_noise(original_samples=z, noise=keywords["noise"], timesteps=keywords["timesteps"])
    torch.testing.assert_close(network.seen[0], torch.cat([noised, keywords["condition"]], 1))
    torch.testing.assert_close(result, noised)
    assert torch.equal(network.seen[1], keywords["timesteps"])
    assert torch.equal(network.seen[2], keywords["label"])


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="one per job"):
        prepare(shares=(1, 1))
    with pytest.raises(ValueError, match="probability"):
        prepare(last=1.5)
    with pytest.raises(ValueError, match="v_prediction"):
        PrepareEnhancement(expert(), scheduler("epsilon"), GaussianNoise(), Holes())
    with pytest.raises(ValueError, match=r"multiples of 4 \(crop_size\), got 30 x 32"):
        prepare()({"image": torch.rand(2, 3, 30, 32)})


def autoencoder() -> PhotoAutoencoder:
    torch.manual_seed(0)
    settings = {"channels": [8], "attention_levels": [False], "num_res_blocks": 1, "norm_num_groups": 4}
    return PhotoAutoencoder(
        AutoencoderKL(
            2, 48, 48, latent_channels=4, **settings, with_encoder_nonlocal_attn=False, with_decoder_nonlocal_attn=False
        )
    )


def test_the_autoencoder_learns_through_drawn_latents() -> None:
    network = DrawnLatents(autoencoder())
    optimizer, criterion = torch.optim.Adam(network.parameters(), 3e-3), AutoencoderLoss()
    image = torch.rand(4, 3, 1, 1, generator=torch.Generator().manual_seed(0)).expand(-1, -1, 16, 16)
    losses = []
    for _ in range(30):
        loss = criterion(Autocast(network, "float32")(image), image)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


def test_the_divergence_is_that_of_normal_distributions() -> None:
    """KL(N(1, 2^2) || N(0, 1)) = (1 + 4 - ln 4 - 1) / 2 = 1.3069 per latent value."""
    image = torch.zeros(2, 3, 4, 4)
    drawn = (image + 0.25, torch.ones(2, 5, 1, 1), torch.full((2, 5, 1, 1), 2.0))
    assert float(AutoencoderLoss(kl=0)(drawn, image)) == pytest.approx(0.25)
    assert float(AutoencoderLoss(kl=1)(drawn, image)) == pytest.approx(0.25 + 5 * 1.30685, abs=1e-3)
    assert float(AutoencoderLoss(kl=0, perceptual=nn.MSELoss())(drawn, image)) == pytest.approx(0.25 + 0.0625)
    with pytest.raises(ValueError, match="negative"):
        AutoencoderLoss(kl=-1)
