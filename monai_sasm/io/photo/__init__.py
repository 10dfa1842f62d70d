"""Photos: PNG, JPEG, TIFF and BMP, with bit depth, colour profile and alpha kept."""
