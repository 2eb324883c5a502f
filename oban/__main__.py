"""`python -m oban`: the command line."""

from oban.cli import main

if __name__ == "__main__":
    main()
