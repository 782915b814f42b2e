"""`python -m cuntong_daemon`."""

from .main import main

if __name__ == "__main__":
    main()
