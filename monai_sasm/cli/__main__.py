"""``python -m monai_sasm.cli`` is ``sasm``."""

from monai_sasm.cli.main import main

main()
