"""Stable Diffusion's x4 upscaler as a refiner of photos, in tiles that share one latent image.

The published pipeline samples an image in one piece. Here every step predicts the noise tile by tile, and the blended
prediction makes the step (MultiDiffusion: Bar-Tal et al. 2023, ICML): tiles cannot drift apart, and the memory of the
networks does not grow with the image. One tile gives what the pipeline gives.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from monai_sasm import optional
from monai_sasm.diffusion.pinning import lowpass
from monai_sasm.functional.tiling import blended_tiles, pad_to_multiple
from monai_sasm.refine.refiner import Refined
from monai_sasm.types import ImageBatch

SCALE = 4  # pixels of the result per latent pixel, which is a pixel of the anchor
MODEL = "stabilityai/stable-diffusion-x4-upscaler"
REVISION = "572c99286543a273bfd17fac263db5a77be12c4c"
"""The commit of :data:`MODEL` on the hub: what is uploaded there later is not read."""
MULTIPLE = 8  # the U-Net halves the latent image three times


class NotDownloadedError(FileNotFoundError):
    """Weights that are not part of a bundle are not on this machine; the message says how to get them."""


class SdUpscaler(nn.Module):
    """Lets Stable Diffusion draw the photo at four times its size, then brings it back to size by default.

    The weights are not this module's: ``state_dict()`` is empty, and they are read from the hub's cache (or a folder)
    on first use, never on construction.

    Args:
        model: name on the Hugging Face hub, or a folder saved by diffusers.
        variant: which of the model's weight files: ``fp16``, or empty for float32.
        download: fetch missing weights; without it nothing is ever downloaded.
        size: of the download, for the error message.
        prompt: what the photo shows; acts with ``guidance`` above 1 only.
        negative_prompt: what it must not look like.
        guidance: strength of the prompt (classifier-free guidance); above 1 it doubles the time.
        steps: sampling steps; more draw finer and take longer.
        noise_level: noise added to the condition, 0 to 350 of 1000; more lets the model invent more.
        tile: side of a tile in pixels of the anchor, a multiple of 8; larger tiles take more memory.
        overlap: pixels over which tiles fade into each other.
        pin: standard deviation in pixels of the low-pass pinned to the anchor; 0 is off.
        seed: of all noise.
        revision: commit of the model on the hub; empty for the newest. Another model needs its own, or an empty one.
    """

    def __init__(
        self,
        model: str = MODEL,
        variant: str = "fp16",
        download: bool = False,
        size: str = "1.7 GB",
        prompt: str = "",
        negative_prompt: str = "",
        guidance: float = 1.0,
        steps: int = 25,
        noise_level: int = 20,
        tile: int = 128,
        overlap: int = 32,
        pin: float = 4.0,
        seed: int = 0,
        revision: str = REVISION,
    ) -> None:
        super().__init__()
        if steps < 1 or noise_level < 0 or pin < 0 or tile < MULTIPLE or tile % MULTIPLE or not 0 <= overlap < tile:
            raise ValueError(
                f"steps must be at least 1, noise_level and pin at least 0, tile a multiple of {MULTIPLE}, overlap "
                f"below it; got {steps}, {noise_level}, {pin}, {tile} and {overlap}"
            )
        self.model, self.variant, self.download, self.size = model, variant, download, size
        self.revision = revision or None
        self.prompt, self.negative_prompt, self.guidance = prompt, negative_prompt, guidance
        self.steps, self.noise_level, self.seed = steps, noise_level, seed
        self.tile, self.overlap, self.pin = tile, overlap, pin
        self.pipeline: Any = None

    def forward(self, image: ImageBatch) -> ImageBatch:
        """Refine photos ``(B, 3, H, W)`` in [0, 1]; the result has their size."""
        return self.refine(image).image

    def refine(self, anchor: ImageBatch, source: ImageBatch | None = None) -> Refined:
        """The drawn photo at the anchor's size, trusted everywhere: one sample tells nothing about its own spread."""
        return Refined(
            image=torch.cat([self._drawn(one[None].float(), large=False) for one in anchor]).to(anchor.dtype),
            trust=torch.ones_like(anchor[:, :1]),
        )

    def enlarge(self, anchor: ImageBatch) -> ImageBatch:
        """The drawn photo as it is, ``(B, 3, 4 H, 4 W)``."""
        return torch.cat([self._drawn(one[None].float(), large=True) for one in anchor]).to(anchor.dtype)

    def prepare(self) -> None:
        """Load the weights, so that missing ones are known before any work.

        Raises:
            MissingExtraError: diffusers is not installed.
            NotDownloadedError: the weights are not on this machine.
        """
        if self.pipeline is None:
            self.pipeline = self._load()

    def source(self) -> str:
        """Which weights these are: the model's name, with the commit on the hub where it came from there."""
        hub = optional.require("huggingface_hub", "the x4 upscaler", "pip install 'monai-sasm[diffusion]'")
        if Path(self.model).is_dir():
            return Path(self.model).name
        cached = hub.try_to_load_from_cache(self.model, "model_index.json", revision=self.revision)
        # .../snapshots/<commit>/model_index.json
        return f"{self.model}@{Path(cached).parent.name}" if isinstance(cached, str) else self.model

    def _load(self) -> Any:
        diffusers = optional.diffusers()
        transformers = optional.require("transformers", "the x4 upscaler", "pip install 'monai-sasm[diffusion]'")
        for library in (diffusers, transformers):
            library.utils.logging.disable_progress_bar()  # of loading; a download still shows its own
        try:
            pipeline = diffusers.StableDiffusionUpscalePipeline.from_pretrained(
                self.model,
                variant=self.variant or None,
                revision=self.revision,
                use_safetensors=True,  # which hold no code, unlike pickles
                local_files_only=not self.download,
                low_cpu_mem_usage=False,  # its other way needs accelerate
            )
        except OSError as error:  # the hub's errors for what is not there
            if self.download:
                raise NotDownloadedError(
                    f"the weights of {self.model} (about {self.size}) did not come: the Hugging Face hub was not "
                    f"reached, or has none; see to the network (HF_ENDPOINT, HF_HUB_OFFLINE) ({type(error).__name__})"
                ) from error
            raise NotDownloadedError(
                f"the weights of {self.model} (about {self.size}) are not on this machine as safetensors: "
                "`sasm bundles download upscale_photo_sd4x` gets them into the Hugging Face cache, as does "
                f"download=True with the bundle's inference.yaml ({type(error).__name__})"
            ) from error
        for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
            part.requires_grad_(False).eval()
        return pipeline

    def _placed(self, device: torch.device) -> Any:
        """The pipeline on a device; U-Net and text encoder in half precision on GPUs, the decoder would overflow."""
        self.prepare()
        dtype = torch.float16 if device.type == "cuda" else torch.float32
        parts = ((self.pipeline.unet, dtype), (self.pipeline.text_encoder, dtype), (self.pipeline.vae, torch.float32))
        for part, wanted in parts:
            if (part.device, part.dtype) != (device, wanted):
                part.to(device, wanted)
        return self.pipeline

    def _drawn(self, anchor: Tensor, large: bool) -> Tensor:
        """One photo ``(1, 3, H, W)``, drawn and pinned; small ones are shrunk tile by tile, so no large one exists."""
        pipeline = self._placed(anchor.device)
        height, width = anchor.shape[-2:]
        latents = self._sampled(pipeline, pad_to_multiple(anchor.clamp(0, 1), MULTIPLE))  # (1, 4, H, W), padded

        def decode(part: Tensor) -> Tensor:
            decoded: Tensor = pipeline.vae.decode(part / pipeline.vae.config.scaling_factor, return_dict=False)[0]
            drawn = (decoded.float() / 2 + 0.5).clamp(0, 1)  # (1, 3, 4 h, 4 w)
            return drawn if large else shrunk(drawn)

        drawn = blended_tiles(latents, decode, self.tile, self.overlap, SCALE if large else 1)
        factor = SCALE if large else 1
        drawn = drawn[..., : factor * height, : factor * width]
        if not self.pin:
            return drawn
        missing = lowpass(anchor - (shrunk(drawn) if large else drawn), self.pin)
        return drawn + (F.interpolate(missing, scale_factor=SCALE, mode="bicubic") if large else missing)

    def _sampled(self, pipeline: Any, low: Tensor) -> Tensor:
        """Latent image ``(1, 4, H, W)`` of a photo ``(1, 3, H, W)`` in [0, 1]."""
        scheduler = pipeline.scheduler
        generator = torch.Generator().manual_seed(self.seed)  # on the CPU: the same draw on every device
        noise = torch.randn(low.shape, generator=generator).to(low)
        start = torch.randn((1, pipeline.vae.config.latent_channels, *low.shape[-2:]), generator=generator).to(low)
        level = torch.tensor([self.noise_level], device=low.device)
        condition = pipeline.low_res_scheduler.add_noise(2 * low - 1, noise, level)
        prompts = self._prompts(pipeline, low.device)
        extra = pipeline.prepare_extra_step_kwargs(generator, 0.0)
        scheduler.set_timesteps(self.steps, device=low.device)
        latents = start * scheduler.init_noise_sigma
        for t in scheduler.timesteps:
            x = torch.cat([scheduler.scale_model_input(latents, t), condition], 1)  # (1, 7, H, W)
            predict = partial(self._predicted, unet=pipeline.unet, t=t, level=level, prompts=prompts)
            predicted = blended_tiles(x, predict, self.tile, self.overlap)
            latents = scheduler.step(predicted, t, latents, **extra, return_dict=False)[0]
        return latents

    def _prompts(self, pipeline: Any, device: torch.device) -> Tensor:
        """Embedded prompts ``(1 or 2, tokens, features)``, the negative one first where there is guidance."""
        guided = self.guidance > 1
        told, against = pipeline.encode_prompt(self.prompt, device, 1, guided, self.negative_prompt)
        return torch.cat([against, told]) if guided else told

    def _predicted(self, x: Tensor, unet: Any, t: Tensor, level: Tensor, prompts: Tensor) -> Tensor:
        """The U-Net's prediction for one tile, guided by the prompt."""
        count = len(prompts)
        out: Tensor = unet(
            x.repeat(count, 1, 1, 1).to(unet.dtype),
            t,
            encoder_hidden_states=prompts,
            class_labels=level.repeat(count),
            return_dict=False,
        )[0].float()
        if count == 1:
            return out
        against, told = out.chunk(2)
        return against + self.guidance * (told - against)


def shrunk(image: Tensor) -> Tensor:
    """``image`` ``(B, C, 4 H, 4 W)`` at a quarter of its sides, without aliasing (bicubic over 16 pixels)."""
    height, width = image.shape[-2:]
    return F.interpolate(image, size=(height // SCALE, width // SCALE), mode="bicubic", antialias=True)
