"""The checks of the deployment files: each is run, or validated by a tool; `make deploy-check`."""
