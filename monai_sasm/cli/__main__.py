"""``python -m monai_sasm.cli`` and the script ``sasm``: Ctrl-C ends them in one line from the first import on."""

import sys


def main() -> None:
    """Entry point of ``sasm``; see :func:`monai_sasm.cli.main.main`."""
    try:
        from monai_sasm.cli.main import main as run

        run()
    except KeyboardInterrupt:
        print("sasm: interrupted before anything was done", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
