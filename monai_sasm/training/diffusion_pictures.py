"""Pictures of a labelled diffusion model in training: forward and reverse strips, samples, noise histograms, loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import Tensor

from monai_sasm.datasets.draws import process
from monai_sasm.diffusion.strips import Recorder, forward_strip, noise_histograms, save_png, tiled
from monai_sasm.experts.diffusion_classifier import DiffusionClassifier
from monai_sasm.training.handlers import loss_of

FORWARD_TIMES = (-1, 50, 100, 200, 300, 500, 700, 999)
HISTOGRAM_TIMES = (50, 200, 600)


class DiffusionPictures:
    """Draws, every ``interval`` epochs and at the end, to TensorBoard and to PNG files in ``<folder>/pictures``.

    ``forward.png``: images at rising noise. ``reverse_<epoch>.png``: from noise to an image, one row per class.
    ``samples_<epoch>.png``: one row per class. ``noise_<epoch>.png``: histograms of true and predicted noise.
    ``loss.png``: mean training loss of every epoch.

    Args:
        network: what is drawn: normally the averaged weights.
        images: clean images ``(N, 3, H, W)``, uint8, for the forward strip and the histograms.
        labels: their labels ``(N,)``.
        folder: output folder.
        interval: epochs between pictures; 0 draws at the end only.
        per_class: samples per class.
        guidance: see :func:`monai_sasm.diffusion.guidance.guided`.
        steps: DDIM steps.
        seed: of all noise, so that pictures of different epochs can be compared.
    """

    def __init__(
        self,
        network: DiffusionClassifier,
        images: Any,
        labels: Any,
        folder: str | Path,
        interval: int = 10,
        per_class: int = 8,
        guidance: float = 2.0,
        steps: int = 25,
        seed: int = 0,
    ) -> None:
        self.network, self.folder, self.interval = network, Path(folder), interval
        self.images = torch.as_tensor(images).float() / 127.5 - 1
        self.labels = torch.as_tensor(labels)
        self.per_class, self.guidance, self.steps, self.seed = per_class, guidance, steps, seed
        self.losses: list[float] = []
        self.means: list[float] = []
        self.writer: Any = None

    def attach(self, engine: Engine) -> None:
        """Register on a MONAI trainer; in a distributed run, on that of the first process."""
        if process() > 0:
            return
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._average)
        if self.interval:
            engine.add_event_handler(Events.EPOCH_COMPLETED(every=self.interval), self.draw)
        engine.add_event_handler(Events.COMPLETED, self.draw)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: the loss of every epoch."""
        return {"means": list(self.means)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the curve."""
        self.means = list(state["means"])

    def draw(self, engine: Engine) -> None:
        """Draw everything with the present weights."""
        from torch.utils.tensorboard import SummaryWriter

        self.writer = self.writer or SummaryWriter(str(self.folder))
        epoch = engine.state.epoch
        training = self.network.training
        self.network.eval()
        with torch.inference_mode():
            self._save("forward", None, self._forward())
            reverse, samples = self._samples()
            self._save("reverse", epoch, reverse)
            self._save("samples", epoch, samples)
            noise = {time: self._noise(time) for time in HISTOGRAM_TIMES}
        self.network.train(training)
        for time, (true, predicted) in noise.items():
            self.writer.add_histogram(f"noise/true, t = {time}", true, epoch)
            self.writer.add_histogram(f"noise/predicted, t = {time}", predicted, epoch)
        self._plot(noise, epoch)
        self.writer.flush()

    def _collect(self, engine: Engine) -> None:
        self.losses.append(loss_of(engine))

    def _average(self) -> None:
        self.means.append(sum(self.losses) / max(len(self.losses), 1))
        self.losses.clear()

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device

    def _forward(self) -> Tensor:
        strip = forward_strip(self.images[:4], self.network.denoiser.schedule, FORWARD_TIMES, self.seed)
        return tiled(strip.flatten(0, 1), strip.shape[1])

    def _samples(self) -> tuple[Tensor, Tensor]:
        recorder = Recorder(self.steps)
        labels = torch.arange(self.network.classes, device=self.device).repeat_interleave(self.per_class)
        size = self.images.shape[-1]
        samples = self.network.generate(labels, self.guidance, self.steps, self.seed, size, recorder)
        strip = recorder.strip()[:: self.per_class]
        return tiled(strip.flatten(0, 1), strip.shape[1]), tiled(samples.clamp(0, 1), self.per_class)

    def _noise(self, time: int) -> tuple[Tensor, Tensor]:
        images, labels = self.images[:64].to(self.device), self.labels[:64].to(self.device)
        noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(self.seed)).to(self.device)
        t = torch.full((len(images),), time, device=self.device)
        kept = self.network.denoiser.schedule[time]
        x = kept.sqrt() * images + (1 - kept).sqrt() * noise
        return noise.cpu(), self.network.denoiser.network(x, timesteps=t, class_labels=labels).cpu()

    def _save(self, name: str, epoch: int | None, picture: Tensor) -> None:
        self.writer.add_image(name, picture, epoch or 0)
        save_png(picture, self._path(name if epoch is None else f"{name}_{epoch:04d}"))

    def _plot(self, noise: dict[int, tuple[Tensor, Tensor]], epoch: int) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        noise_histograms(self._path(f"noise_{epoch:04d}"), noise)
        curve = Figure(figsize=(4, 3), dpi=80, layout="constrained")
        FigureCanvasAgg(curve)
        axis = curve.subplots()
        axis.plot(range(epoch - len(self.means) + 1, epoch + 1), self.means)
        axis.set(xlabel="epoch", ylabel="mean training loss", yscale="log")
        curve.savefig(self._path("loss"))

    def _path(self, name: str) -> Path:
        folder = self.folder / "pictures"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{name}.png"


def save_samples(
    network: DiffusionClassifier,
    path: str | Path,
    per_class: int = 8,
    guidance: float = 2.0,
    steps: int = 50,
    seed: int = 0,
    size: int = 32,
) -> Path:
    """Draw new images, one row per class, to a PNG file; arguments as for :meth:`DiffusionClassifier.generate`."""
    device = next(network.parameters()).device
    labels = torch.arange(network.classes, device=device).repeat_interleave(per_class)
    with torch.inference_mode():
        samples = network.eval().generate(labels, guidance, steps, seed, size)
    save_png(tiled(samples.clamp(0, 1), per_class), path)
    return Path(path)
