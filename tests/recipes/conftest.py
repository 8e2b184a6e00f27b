"""The command line runs in the tests' own process: once imported, a command takes a moment."""

# Its log handler keeps the stderr of the moment when it is imported, which must outlive a test.
import lightning.pytorch  # noqa: F401
