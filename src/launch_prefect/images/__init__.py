"""From a folder of code to what it runs in: a container image, or a virtual environment for the process target."""
