"""One program on many devices and processes: the mesh, where arrays live, who does which work."""
