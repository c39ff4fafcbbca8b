"""The trackd daemon: one program, two roles (agent, hub), joined by one gRPC service."""
