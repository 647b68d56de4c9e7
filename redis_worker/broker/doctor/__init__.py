"""The examination of a server and of what lies on it: one file for each group of checks."""
