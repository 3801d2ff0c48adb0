"""The task families of the reasoning world: each module parses a problem and works it out in several ways."""
