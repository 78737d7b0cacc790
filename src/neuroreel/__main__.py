"""`python -m neuroreel` is the same program as `neuroreel`."""

from neuroreel.cli import main

if __name__ == "__main__":
    main()
