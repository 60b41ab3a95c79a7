"""What `lbnode doctor` knows: small checks of the host a node stands on, each with a word on how to mend it.

`examine` runs them all; `host` reads what they ask for and changes nothing; every other module decides, purely, from
facts and rows.
"""
