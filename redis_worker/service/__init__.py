"""Workers: the only package that composes engine and broker."""
