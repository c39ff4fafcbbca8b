"""`trackd doctor`, the part that thinks: what was seen on this machine, and what that means. Pure."""
