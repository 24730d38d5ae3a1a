"""Figures 2, 4 and 5 of Kingma & Welling (2013), reproduced; see benchmarks/paper/README.md."""
