"""Fixtures of the whole suite live in plugins beside their parts."""

pytest_plugins = ["helpers.examples", "helpers.databases", "helpers.s3", "helpers.admin", "helpers.planes"]
