"""Figures 2 to 5 of Kingma & Welling (2013), reproduced; see benchmarks/paper/README.md."""
