"""`python -m spelldown` is the command `spelldown`."""

from spelldown.cli import main

if __name__ == "__main__":  # a process that prepares batches may import this file anew
    main()
