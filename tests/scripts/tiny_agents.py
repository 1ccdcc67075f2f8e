"""Flags that make the networks of every agent tiny; an agent is given those that it has."""

POLICY, MODEL = ("--policy-hidden", "8"), ("--members", "2", "--hidden", "8")


def tiny(agent: str, episodes: str = "2") -> tuple[str, ...]:
    """Of the agent of this name."""
    played = ("--episodes", episodes)
    return {
        "sac": (*POLICY, *played),
        "bc": (*POLICY, *played),
        "pets": MODEL,
    }.get(agent, (*MODEL, *POLICY, *played))
