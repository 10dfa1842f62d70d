"""Write down the sha256 of all weights in ``bundles/``, for :mod:`monai_sasm.bundles.shipped`; after every training.

scripts/list_weights.py
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def listed(bundles: Path) -> dict[str, str]:
    """``BUNDLE/FILE`` -> sha256 of each ``BUNDLE/models/FILE.pt``, in order."""
    return {
        f"{path.parent.parent.name}/{path.name}": hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(bundles.glob("*/models/*.pt"))
    }


if __name__ == "__main__":
    target = ROOT / "monai_sasm" / "bundles" / "shipped_weights.json"
    target.write_text(json.dumps(listed(ROOT / "bundles"), indent=1) + "\n", encoding="utf-8")
