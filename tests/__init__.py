"""Tests mirror the package; ``laws/`` holds one law over a list."""
