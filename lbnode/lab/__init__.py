"""The lab: whole topologies on one machine, on a real kernel.

Nodes are network namespaces with their own mounts, host name and processes (`namespaces`), joined by veth pairs and
bridges (`links`, `ecmp`), with a small stand-in for systemd (`supervisor`). `kernel` runs all of it on a kernel that
can: the running one, or a guest, an ordinary process (`boot`): user-mode-linux (`uml`), or Debian's kernel with two
processors in QEMU (`smp`). `session` keeps a lab up in the background.
"""
