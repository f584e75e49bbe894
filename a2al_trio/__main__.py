"""`python -m a2al_trio` is the `a2al-trio` command."""

from a2al_trio.cli import main

main()
