"""The second chance: a flow that came to the wrong real server is sent on to the one that has it.

A classifier in the kernel of each L7 node (and backend that answers clients directly) decides it packet by packet
(classifier.c). What it knows is worked out here: from the Maglev tables that the L4 nodes use now and used before
(`generations`), packed for the kernel (`layout`), written there through bpf(2) (`bpf`, `driver`).
"""
