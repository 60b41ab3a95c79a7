"""`python -m lbnode`: the same command line as `lbnode`."""

from lbnode.cli import main

main()
