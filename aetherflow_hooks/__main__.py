"""`python -m aetherflow_hooks`: the command line."""

from aetherflow_hooks.cli import main

main()
