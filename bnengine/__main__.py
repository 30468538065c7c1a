"""`python -m bnengine` is `bnengine`."""

from .cli import main

main()
