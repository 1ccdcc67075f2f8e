"""Lines to and from a peer's process, with peers that are a few lines of Python."""

import sys
import textwrap
from importlib.metadata import version

import pytest

from mbrl_bilevel.scripts.peers.protocol import Peer

SLEEPER = """
    import time
    from mbrl_bilevel.scripts.peers.protocol import serve

    def prepare(spec):
        print("a library's own words")
        def call():
            print("more of them")
            time.sleep(spec["seconds"])
            if spec.get("fails"):
                raise ValueError("no such thing")
        return call

    serve(prepare, "torch")
"""


def peer(program: str, **spec: object) -> Peer:
    return Peer([sys.executable, "-c", textwrap.dedent(program)], spec)


def test_a_round_is_asked_for_by_a_line_and_answered_by_its_seconds():
    with peer(SLEEPER, seconds=0.05) as sleeper:
        assert sleeper.versions == {"torch": version("torch")}
        seconds = [sleeper.run() for _ in range(3)]
    # without the pipe's own time, and with what sleeping takes at the least
    assert all(0.05 <= second < 5 for second in seconds)
    assert sleeper.process.returncode == 0


def test_a_peer_that_fails_is_named_with_its_last_words():
    with (
        peer(SLEEPER, seconds=0, fails=True) as sleeper,
        pytest.raises(ChildProcessError, match=r"ended: ValueError: no such thing$"),
    ):
        sleeper.run()


def test_a_peer_that_cannot_start_is_named_with_its_last_words():
    with pytest.raises(ChildProcessError, match=r"ended: ModuleNotFoundError: .*no_such_library"):
        peer("import no_such_library")


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("print('hello')", "answered 'hello' in place of 'ready'"),
        ("print('ready {}', flush=True); input(); print('soon')", "answered 'soon' in place of"),
        ("print('ready {}', flush=True); input()", "ended$"),
    ],
)
def test_a_peer_that_says_something_else_is_refused(program, words):
    with pytest.raises(ChildProcessError, match=words), peer(program) as other:
        other.run()


def test_a_peer_that_does_not_end_is_killed(monkeypatch):
    deaf = peer("import time; print('ready {}', flush=True); time.sleep(600)")
    wait = deaf.process.wait
    monkeypatch.setattr(deaf.process, "wait", lambda timeout=None: wait(timeout and 0.1))
    deaf.close()
    assert deaf.process.returncode == -9
