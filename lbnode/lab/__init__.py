"""The lab: whole topologies on one machine, on a real kernel.

Nodes are network namespaces with their own mounts, host name and processes (`namespaces`), joined by veth pairs and
bridges (`links`, `ecmp`), with a small stand-in for systemd (`supervisor`). `kernel` runs all of it on a kernel that
can: the running one, or user-mode-linux (`uml`) as an ordinary process. `session` keeps a lab up in the background.
"""
