"""Public data sets as they are unpacked: one file per layout, a list of subjects or a MONAI data list from each."""
