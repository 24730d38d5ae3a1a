"""`vae-ext`, which is also `python -m vae_ext`."""

from __future__ import annotations

from vae_ext import interrupts


def main() -> None:
    interrupts.end_the_process()
    from vae_ext.cli import app

    app(prog_name="vae-ext")


if __name__ == "__main__":
    main()
