"""`python -m retriever`: the command line."""

from retriever.cli import main

if __name__ == "__main__":
    main()
