"""The verbs of the command `tljax`, and the jobs behind `train`."""
