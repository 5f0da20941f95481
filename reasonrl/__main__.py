"""``python -m reasonrl``: the command line."""

from reasonrl.cli.app import main

if __name__ == "__main__":
    main()
