"""One daemon per instance directory: who owns it, where it is found, when it leaves."""
