"""The command line."""


def main() -> None:
    """Print the package's version until the first commands stand."""
    import sys

    from neuroreel import __version__

    sys.stdout.write(f"neuroreel {__version__}\n")
