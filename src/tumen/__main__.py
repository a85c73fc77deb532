"""`python -m tumen` is `tumen`."""

from tumen.cli import main

main()
