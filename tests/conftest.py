"""Every annotation of a shape is checked while the tests run."""

import os

from jaxtyping import install_import_hook

# As on the command line: torch's threads, spinning, would slow tests many times on a busy machine.
# Read when torch is first imported.
os.environ.setdefault("GOMP_SPINCOUNT", "3000")

install_import_hook("mbrl_bilevel", "beartype.beartype")
