"""A TOML file and the checked plan that it describes."""
