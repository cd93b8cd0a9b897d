"""Stand-ins for decoders that do what real ones do when things go wrong."""
