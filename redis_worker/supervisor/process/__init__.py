"""Parts in processes of their own."""
