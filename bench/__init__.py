"""Measures lbnode against the programs it replaces, on one kernel, side by side: `make bench`."""
