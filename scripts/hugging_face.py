"""Lay a bundle out as a repository of Hugging Face's hub: the bundle, and a model card made from its own pages.

    python scripts/hugging_face.py lowdose_ct_unet -o hub/

Nothing is sent. Who has an account publishes the folder with ``hf upload OWNER/NAME hub/NAME``; others then get the
bundle by ``python -m monai.bundle download --name NAME --source huggingface_hub --repo OWNER/NAME``.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

import yaml

from monai_sasm.bundles import read_metadata

ROOT = Path(__file__).resolve().parents[1]
CARD = "README.md"
LICENCES = {
    "Apache-2.0": "apache-2.0",
    "CC-BY-NC-SA-3.0": "cc-by-nc-sa-3.0",
    "CC-BY-SA-4.0": "cc-by-sa-4.0",
    "CreativeML-OpenRAIL++-M": "openrail++",
}
"""Licence of the weights -> its name at the hub; any other is ``other``, with its own name and the page about it."""
TASKS = {"classifier": "image-classification", "gate": "image-segmentation", "segmenter": "image-segmentation"}
"""Role -> task of the hub; of all that restore ``image-to-image``."""
PARTS = ("LICENSE", "configs", "docs", "models")


def lay_out(bundle: Path, output: Path) -> Path:
    """Write ``<output>/<name of the bundle>``: licence, configurations, pages, weights, and the card.

    Args:
        bundle: its folder.
        output: must not hold a folder of that name yet.

    Returns:
        The new folder.

    Raises:
        FileExistsError: it is there already.
        FileNotFoundError: the bundle lacks its licence, a folder, or ``models/model.pt``.
    """
    for part in (*PARTS, "models/model.pt", "docs/data_license.txt"):
        if not (bundle / part).exists():
            raise FileNotFoundError(f"{bundle.name} has no {part}")
    folder = output / bundle.name
    folder.mkdir(parents=True)
    for part in PARTS:
        source = bundle / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__", ".*"))
        else:
            shutil.copy(source, folder / part)
    (folder / CARD).write_text(card(bundle), encoding="utf-8")
    return folder


def card(bundle: Path) -> str:
    """The model card: metadata that the hub understands as YAML, how to get it and to run it, the bundle's own page."""
    metadata = read_metadata(bundle)
    head = yaml.safe_dump(facts(metadata), sort_keys=False, allow_unicode=True)
    page = (bundle / "docs" / "README.md").read_text(encoding="utf-8")
    title, _, rest = page.partition("\n")
    use = f"""
**For research; not a medical device, not for diagnosis or treatment.** Version {metadata["version"]}, for `monai_sasm`.
Weights under {metadata["sasm"]["weights_license"]}, see [their terms](docs/data_license.txt); code: Apache-2.0.

```bash
pip install 'monai-sasm[train]'
python -m monai.bundle download --name {bundle.name} --source huggingface_hub --repo OWNER/{bundle.name} --bundle_dir .
python -m monai.bundle run --config_file {bundle.name}/configs/inference.yaml --dataset_dir IN --output_dir OUT
```
"""
    return f"---\n{head}---\n\n{title}\n{use}{rest}"


def facts(metadata: dict[str, Any]) -> dict[str, Any]:
    """What the hub sorts models by."""
    section = metadata["sasm"]
    licence = section["weights_license"]
    found: dict[str, Any] = {"license": LICENCES.get(licence, "other")}
    if found["license"] == "other":
        found |= {"license_name": licence.removeprefix("LicenseRef-"), "license_link": "docs/data_license.txt"}
    tags = ["monai", "medical" if section.get("modality") in ("CT", "MR") else "photo", section["role"]]
    return {
        **found,
        "library_name": "monai",
        "pipeline_tag": TASKS.get(section["role"], "image-to-image"),
        "tags": [*tags, *(str(section[key]) for key in ("modality", "degradation") if section.get(key))],
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", nargs="+", help="names of bundles of this repository")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder that gets a folder for each bundle")
    arguments = parser.parse_args()
    for name in arguments.bundle:
        print(lay_out(ROOT / "bundles" / name, arguments.output))


if __name__ == "__main__":
    main()
