"""The lines of the first page of docs/RESULTS.md: tasks, experts, which numbers of which tables, advice."""

from __future__ import annotations

from dataclasses import dataclass

from monai_sasm.evaluation.restoring import DEFAULT

SUBSET = " (BM3D subset)"


@dataclass(frozen=True)
class Figure:
    """One number of a stored table.

    Args:
        protocol: whose table.
        rows: names of a method, the first one found counts: older tables name it otherwise.
        metric: of :attr:`Row.scores`.
        text: how it is printed, a format with one place, and one more in front where there is ``before``.
        levels: the mean over those that are there.
        before: another row, that of the image as it came or of a peer, for a number that says nothing alone.
    """

    protocol: str
    rows: tuple[str, ...]
    metric: str
    text: str
    levels: tuple[str, ...] = ("",)
    before: str = ""


@dataclass(frozen=True)
class Line:
    """One task and its expert.

    Args:
        task: in few words.
        expert: bundle; with ``default`` the row is that of the whole pipeline, gate included.
        gain: what it is measured by.
        before: row without restoration.
        peers: rows in the same run: methods of others, and the U-Net of the task for an expert that rivals it.
        unit: of the gain: ``dB``, ``points`` (shares in per cent), or ``%`` (of the value before, smaller is better).
        keeps: what else counts.
        use: when to use it.
        avoid: when not.
    """

    task: str
    expert: str
    gain: Figure
    before: str
    peers: tuple[str, ...]
    use: str
    avoid: str
    unit: str = "dB"
    keeps: tuple[Figure, ...] = ()
    gate: bool = True


_CT = ("BM3D", "NLM fast", "TV", "bilateral")
_L096 = ("L096 D45f (test)",)
_LESION = "gain 3 mm/14"
_BY_NAME = "named: `--expert`"


def _ct_rival(name: str, row: str) -> Line:
    return Line(
        "CT at quarter dose",
        name,
        Figure("ct-lowdose", (row,), "PSNR", "", _L096),
        "input",
        (*_CT, "expert lowdose_ct_unet"),
        "its texture is preferred",
        "small lesions or speed count: the U-Net is better",
        keeps=(
            Figure("ct-lesions", (row,), _LESION, "3 mm/14 HU {:.0%}", ("quarter",)),
            Figure("ct-lowdose", (row,), "bias", "HU {:+.1f}", _L096),
        ),
        gate=False,
    )


def _sharpened_lesion(level: str, before: str) -> Figure:
    metric, text = "signal 3 mm/20 %", "3 mm lesion {:.0%} -> {:.0%}"
    return Figure("mri-lesions", ("expert superres_mri_unet",), metric, text, (level,), before)


def _mr_rival(name: str, row: str) -> Line:
    return Line(
        "MR, coarse x2 (brains)",
        name,
        Figure("mri-heads", (row,), "gain", "", ("brains x2",)),
        "zero-filled",
        ("cubic", "U-Net"),
        "networks are compared",
        "anything else: the U-Net is better and faster",
        keeps=(
            Figure("mri-superres", (row,), "Dice", "hippocampus Dice at x4 {:.3f} -> {:.3f}", ("x4",), "zero-filled"),
        ),
        gate=False,
    )


LINES = (
    Line(
        "CT at quarter dose",
        "lowdose_ct_unet",
        Figure("ct-lowdose", (DEFAULT, "expert lowdose_ct_unet", "ours"), "PSNR", "", _L096),
        "input",
        _CT,
        "noise is clearly above that of the usual dose; `sasm qualify` first",
        "lesions of 3 mm decide: lower `--strength`",
        keeps=(
            Figure("ct-lesions", (DEFAULT,), _LESION, "3 mm/14 HU {:.0%}", ("quarter",)),
            Figure(
                "ct-lesions", (f"{DEFAULT}, noise as full dose",), _LESION, "at noise as full dose {:.0%}", ("quarter",)
            ),
            Figure("ct-lowdose", (DEFAULT, "expert lowdose_ct_unet", "ours"), "bias", "HU {:+.1f}", _L096),
        ),
    ),
    _ct_rival("lowdose_ct_esrgan", "ESRGAN"),
    _ct_rival("lowdose_ct_dit", "DiT, 1 step"),
    _ct_rival("lowdose_ct_sit", "SiT, 1 step"),
    Line(
        "MR, 6 % noise, single slices",
        "noise_mri_unet",
        Figure("mri-noise", (DEFAULT, "expert noise_mri_unet", "ours, sigma estimated"), "PSNR head", "", ("6 %",)),
        "input",
        ("BM3D, Rician-corrected", "NLM fast, Rician-corrected", "curvature flow", "BM3D", "NLM fast"),
        "magnitude images with visible noise",
        "quantitative maps, phase, noise below 2 %",
        keeps=(Figure("mri-lesions", (DEFAULT,), "signal 3 mm/20 %", "3 mm lesion {:.0%}", ("noise 6 %",)),),
    ),
    Line(
        "MR, 6 % noise, slices as close as pixels",
        "noise_mri_unet",
        Figure("mri-noise", (DEFAULT, "expert noise_mri_unet"), "PSNR head", "", ("stacks, 6 %",)),
        "input",
        ("BM3D, Rician-corrected", "NLM fast, Rician-corrected", "curvature flow", "BM3D", "NLM fast"),
        "3-D acquisitions: each slice is seen between its neighbours",
        "as above",
    ),
    Line(
        "MR, the scanner's own noise (FLAIR)",
        "noise_mri_unet",
        Figure("mri-repeat", (DEFAULT,), "PSNR", "", ("FLAIR",)),
        "input",
        ("Gaussian 0.7 pixels", "BM3D", "NLM fast", "Gaussian 0.5 pixels", "Gaussian 1 pixels"),
        "slices are grainy; measured against a second scan in another position, of which whatever blurs is nearer",
        "as above",
        keeps=(
            Figure(
                "mri-repeat",
                (DEFAULT,),
                "gradient",
                "gradients: Gaussian 0.7 {:.0%}, this {:.0%}",
                ("FLAIR",),
                "Gaussian 0.7 pixels",
            ),
        ),
    ),
    Line(
        "MR, coarse x2 (brains)",
        "superres_mri_unet",
        Figure("mri-heads", ("U-Net",), "gain", "", ("brains x2",)),
        "zero-filled",
        ("cubic",),
        f"k-space was cut; {_BY_NAME}",
        "interpolated images; detail decides a diagnosis",
        keeps=(_sharpened_lesion("truncated x2", "input"),),
        gate=False,
    ),
    Line(
        "MR, coarse x4 (brains)",
        "superres_mri_unet",
        Figure("mri-heads", ("U-Net",), "gain", "", ("brains x4",)),
        "zero-filled",
        ("cubic",),
        "as above",
        "as above",
        gate=False,
    ),
    Line(
        "MR, slices of 3 mm made thin",
        "superres_mri_unet",
        Figure("mri-lesions", ("expert superres_mri_unet",), "PSNR", "", ("slices of 3",)),
        "cubic along slices",
        (),
        "`sasm thin`, for views across slices",
        "slices have gaps or unequal steps; small lesions: they stay as wide across slices as before",
        keeps=(_sharpened_lesion("slices of 3", "cubic along slices"),),
        gate=False,
    ),
    _mr_rival("superres_mri_esrgan", "ESRGAN"),
    _mr_rival("superres_mri_dit", "DiT, 1 step"),
    _mr_rival("superres_mri_sit", "SiT, 1 step"),
    Line(
        "photo, noise 25/255",
        "noise_photo_unet",
        Figure("photo-awgn", (DEFAULT, "expert noise_photo_unet", "ours, sigma estimated"), "PSNR", "", ("CBSD68 25",)),
        "input",
        ("NLM fast", f"BM3D{SUBSET}"),
        "photos with grain, any level",
        "grain is wanted; scans of prints",
        keeps=(Figure("no-harm", (DEFAULT,), "touched", "clean photos touched {:.0%}", ("PHOTO",)),),
    ),
    Line(
        "photo, noise of a camera",
        "noise_photo_unet",
        Figure("photo-real", (DEFAULT,), "PSNR", "", ("CC15",)),
        "input",
        ("NLM fast", "BM3D"),
        "high ISO, as it comes out of the camera",
        "the noise is faint: name the expert, the gate may leave it",
        keeps=(
            Figure(
                "photo-real", ("expert noise_photo_unet",), "PSNR", "by name {:.1f} -> {:.1f} dB", ("CC15",), "input"
            ),
        ),
    ),
    Line(
        "photo, noise 25/255",
        "noise_photo_ddpm",
        Figure("photo-ddpm", ("ours, 1 step",), "PSNR", "", ("CBSD68 25",)),
        "input",
        ("NLM fast", "expert noise_photo_unet"),
        "several plausible answers are wanted",
        "fidelity counts: the U-Net is better",
        gate=False,
    ),
    Line(
        "photo behind drops (real)",
        "raindrop_photo_unet",
        Figure(
            "raindrop-real", (DEFAULT, "expert raindrop_photo_unet"), "PSNR RGB", "", ("pair 0", "pair 1", "pair 183")
        ),
        "input",
        (),
        "drops on a window pane",
        "rain streaks, fog, drops over the whole view",
        keeps=(
            Figure(
                "raindrop-synth",
                (DEFAULT, "ours, whole pipeline"),
                "PSNR outside",
                "outside drops {:.1f} -> {:.1f} dB",
                before="input",
            ),
        ),
    ),
    Line(
        "photo, drops here, noise there",
        "gate_mobilenet",
        Figure("mixed", (DEFAULT,), "PSNR", ""),
        "input",
        (
            "expert raindrop_photo_unet",
            "expert noise_photo_unet",
            "hard gate (one expert per image)",
            "hard gate (argmax per pixel)",
        ),
        "always: it is the default",
        "the fault is known: name the expert",
        keeps=(
            Figure("no-harm", (DEFAULT,), "gain", "clean CT {:.1%} of contrast", ("CT",)),
            Figure("no-harm", (DEFAULT,), "gain", "clean MR {:.1%}", ("MR",)),
        ),
    ),
    Line(
        "photo with holes below 20 %",
        "enhance_photo_diffusion",
        Figure("inpaint", ("ours, 1 step",), "PSNR hole", "", ("strokes below 20 %",)),
        "input",
        ("membrane", "biharmonic"),
        "small holes, scratches",
        "large holes: what it draws is a guess",
        keeps=(Figure("inpaint", ("ours, 1 step",), "outside", "outside changed by {:.0f}", ("strokes below 20 %",)),),
        gate=False,
    ),
    Line(
        "photo made x2 larger",
        "enhance_photo_diffusion",
        Figure("superres-photo", ("ours, 1 step",), "PSNR RGB", "", ("x2",)),
        "bicubic",
        ("Lanczos", "bicubic, back-projected"),
        "photos without noise",
        "JPEG of low quality; medical images",
        keeps=(Figure("superres-photo", ("ours, 1 step",), "consistency", "given pixels to {:.3f} of 255", ("x2",)),),
        gate=False,
    ),
    Line(
        "feature distance after noise",
        "refine_photo_flow",
        Figure("refine", ("refined, 1 step",), "VGG19-n", "", ("noise 25",)),
        DEFAULT,
        ("grain alone",),
        "`--refine`: sharper to the eye",
        "pixels count; CT and MR (refused)",
        unit="%",
        keeps=(Figure("refine", ("refined, 1 step",), "gain", "{:+.2f} dB", ("noise 25",)),),
    ),
    Line(
        "classes of CIFAR-10",
        "cifar10_diffusion",
        Figure("cifar10", ("ours",), "clean", "", ("top-1 accuracy",)),
        "plain CNN",
        ("plain CNN, trained with noise",),
        "to study diffusion classifiers",
        "to classify: a plain CNN is better",
        unit="points",
        gate=False,
    ),
)
