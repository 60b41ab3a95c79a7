"""The users of a lab: one process in their namespace that plays many clients, each from an address of its own.

`http` speaks HTTP over sockets that can be made to crawl, `flows` are connections that last as long as an experiment,
`worker` is the process, `crowd` is how a scenario directs it.
"""
