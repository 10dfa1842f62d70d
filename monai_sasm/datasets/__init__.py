"""Images for training and measuring: layouts of public data sets, paired folders, labelled volumes, crops."""
