"""`python -m cuntong_tools`."""

from .main import main

if __name__ == "__main__":
    main()
