"""HAProxy on L7 nodes: its configuration as a pure function, and the thin layer that makes a running one follow it.

render      Cluster -> haproxy.cfg                        PURE
views       what its template sees; quoting: words that stay words        PURE
tables      the maps and lists that it speaks of           PURE
statefile   running servers + haproxy.cfg -> what a reload keeps of them        PURE
program     the binary: its version, `haproxy -c`, how a supervisor starts it
configuration  that file read back: what a reload alone can change        PURE
rows        what HAProxy should run and hold, as rows      PURE
live        what a running one holds, and how that is changed
origin      where a line that HAProxy rejects comes from   PURE
stats       services and servers, with why they are out    PURE
runtime     the sockets: commands, statistics, reload
driver      rows of state, for `lbnode.reconcile`
"""
