"""Audio: recordings of any length as waveforms or features."""
