"""`python -m diffcode` is the same as `diffcode`."""

from diffcode.cli import main

main()
