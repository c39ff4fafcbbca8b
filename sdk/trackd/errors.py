"""What trackd raises on purpose."""


class Error(Exception):
    """Base of trackd's own errors."""


class UsageError(Error):
    """A call at the wrong time: `log()` before `init()`, or with ``strict`` after `finish()`."""


class ConfigError(Error):
    """A config value was changed without ``allow_val_change=True``."""


class ResumeError(Error):
    """`init(resume="must")` found no such run, or `init(resume="never")` found one."""


class ResumeUnknownError(ResumeError):
    """Whether the run exists could not be found out: the hub did not answer."""


class UnsupportedPlatformError(Error):
    """trackd does not run on this system or this build of Python."""
