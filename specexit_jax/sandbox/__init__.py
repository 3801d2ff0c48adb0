"""Runs Python that a model wrote in isolation: no network, no files but its own, no other process, and limits on all
resources.

Layers, each applied to the child alone before it sees a line of the program; Linux on x86_64 and aarch64, root or not:

- seccomp (always): system calls are allowed by name; no sockets, namespaces, tracing, keys, mounts, leaving of the group;
- Landlock (from Linux 5.13): only Python and the system's libraries can be read, only the run's own folder written;
- namespaces (where they are granted): a root of its own without /proc or homes, its own processes, an empty network;
- no capabilities, no new privileges, an environment, descriptors and session of its own, resource limits;
- a supervisor outside bounds what all its processes together take, and kills them all at the end, or when we die;
- tests that judge a program run in another such sandbox than the program (judged/), with two pipes between them.

Isolation of files needs Landlock or namespaces, that of the network seccomp. If they are not available, nothing is run
(RuntimeError). What this does not stop: a flaw in the kernel, use of the CPU within its limits, and learning by `stat`
that a path exists (without namespaces). No library does it: those for Landlock are pre-releases or new and unproven,
pyseccomp rests from 2021 and needs libseccomp's C library, bubblewrap needs namespaces, which containers often refuse;
and the child starts without site-packages.
"""
