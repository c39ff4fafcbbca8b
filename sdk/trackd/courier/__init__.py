"""The courier: the SDK's sidecar client, a small process of its own beside each training process.

It tails the spools of its trainer and of the trainer's forked children, hands the records on (to the daemon, or to
files in the run directory when offline), writes watermarks, links and stop requests back into the spools' heads, and
drains what a killed trainer left.
"""
