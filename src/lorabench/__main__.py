"""`python -m lorabench` is the command line."""

from lorabench.cli.main import main

if __name__ == "__main__":
    main()
