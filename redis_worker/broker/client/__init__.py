"""Clients that submit tasks, await results and publish messages."""
