"""`python -m vae_ext` is `vae-ext`."""

from vae_ext.cli import main

main()
