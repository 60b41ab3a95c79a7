"""What labs are for: experiments on a whole network, each step with its figures and a verdict.

`sight` reads what the nodes' kernels know, `stage` is a network with its programs and clients, `report` is what a
person sees, and a module per topology holds the steps.
"""
