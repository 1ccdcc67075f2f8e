"""A load by Minari's own loader."""

from collections.abc import Callable
from functools import partial

from mbrl_bilevel.scripts.bench_load import iterate
from mbrl_bilevel.scripts.peers.protocol import Spec, serve


def prepare(spec: Spec) -> Callable[[], object]:
    return partial(iterate, spec["dataset"])


if __name__ == "__main__":
    serve(prepare, "minari")
