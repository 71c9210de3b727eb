"""Pure mathematics of the log: RFC 6962 proofs (``proof``) and the C2SP tlog-tiles layout (``tile``). No I/O."""
