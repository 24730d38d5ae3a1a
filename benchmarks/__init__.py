"""How fast the operators are, and against what; see benchmarks/README.md."""
