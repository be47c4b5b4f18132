"""`python -m elias_idx`: the command line, as `torchrun -m elias_idx train ...` starts it."""

from elias_idx.cli import main

if __name__ == "__main__":
    main()
