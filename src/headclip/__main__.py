"""`python -m headclip` is the `headclip` command."""

from headclip.cli.app import main

if __name__ == "__main__":
    main()
