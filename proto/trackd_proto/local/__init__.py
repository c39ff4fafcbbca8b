"""What SDK, courier, CLI and daemon share on one machine: private places, credentials, finding the daemon."""
