"""Every annotation of a shape is checked while the tests run."""

from jaxtyping import install_import_hook

install_import_hook("mbrl_bilevel", "beartype.beartype")
