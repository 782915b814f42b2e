"""The satellite datacast of a node (SPEC 11): a sender and a receiver, each made of several processes.

Sender: `service` (in the daemon) -> `caster` (what is sent) -> `encoder` (RaptorQ), and over a ring in memory `pacer`.
Receiver: `receiver` (in the daemon) -> `reader` (socket, authentication, spool) and `decoder` (RaptorQ).
Children hear what to do on their standard input and answer on their standard output (`frames`).
"""
