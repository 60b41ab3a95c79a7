"""The agent: the same pass as `lbnode apply`, in a loop, woken by events and by a timer."""
