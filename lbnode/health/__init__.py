"""Health: probes of the real servers, and the rise and fall that keeps one lost packet from meaning anything."""
