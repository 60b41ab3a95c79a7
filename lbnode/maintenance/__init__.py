"""Maintenance: the files an operator writes, the state they mean, and the agent-check protocol that tells others."""
