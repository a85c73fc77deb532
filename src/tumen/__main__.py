"""`python -m tumen` is `tumen`."""

from tumen.cli import main

if __name__ == "__main__":  # processes that sample sentences import this file again
    main()
