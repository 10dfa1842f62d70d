"""A random pipeline of the classes of Stable Diffusion's x4 upscaler, a few thousand parameters large, on disk."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from monai_sasm import optional


def write_pipeline(folder: Path) -> Path:
    """Save the pipeline as diffusers saves it, for ``from_pretrained``; gives the folder."""
    diffusers = optional.diffusers()
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    unet = diffusers.UNet2DConditionModel(
        sample_size=16,
        in_channels=7,
        out_channels=4,
        block_out_channels=(8, 8, 8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D", "UpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=4,
        norm_num_groups=4,
        num_class_embeds=1000,
    )
    vae = diffusers.AutoencoderKL(
        block_out_channels=(8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=4,
        scaling_factor=0.08333,
    )
    text = CLIPTextConfig(
        vocab_size=1000,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=77,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    steps = {"beta_start": 0.0001, "beta_end": 0.02}
    pipeline = diffusers.StableDiffusionUpscalePipeline(
        vae=vae,
        text_encoder=CLIPTextModel(text),
        tokenizer=_tokenizer(folder / "vocabulary"),
        unet=unet,
        low_res_scheduler=diffusers.DDPMScheduler(beta_schedule="scaled_linear", **steps),
        scheduler=diffusers.DDIMScheduler(prediction_type="v_prediction", clip_sample=False, **steps),
    )
    pipeline.save_pretrained(folder / "pipeline")
    return folder / "pipeline"


def _tokenizer(folder: Path) -> object:
    """CLIP's tokenizer over single letters, without merges."""
    from transformers import CLIPTokenizer

    letters = [chr(code) for code in range(ord("!"), ord("~") + 1)]
    tokens = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer.from_pretrained(folder, model_max_length=77)
