"""`python -m launch_prefect.cli`."""

from launch_prefect.cli import main

if __name__ == "__main__":
    main()
