"""A trainable that only counts, and what happens to it."""

import json
import os
import signal

import torch

from mbrl_bilevel.training.checkpoint import load_checkpoint, save_checkpoint


class Counting:
    """Counts its steps; `at` maps steps to what happens in them, `save_every` says when to save."""

    def __init__(self, save_every=1, at=None, acts=True):
        self.step, self.save_every, self.at, self.acts = 0, save_every, at or {}, acts
        self.since, self.pace = 0, 1.0

    @property
    def learning_rate_scaled(self):
        return self.pace != 1.0

    def scale_learning_rate(self, factor):
        self.pace *= factor

    @property
    def can_save(self):
        return self.step % self.save_every == 0

    def train_step(self):
        self.step += 1
        self.since += 1
        self.at.get(self.step, lambda: None)()

    def metrics(self):
        found, self.since = {"steps": float(self.since)}, 0
        return found

    def policy(self):
        return {"step": self.step} if self.acts else None

    def save(self, folder):
        counts = torch.tensor([self.step, self.since])
        save_checkpoint(folder, {"counts": counts, "pace": torch.tensor(self.pace)}, {})

    def load(self, folder):
        loaded = load_checkpoint(folder, "cpu")
        if loaded is not None:
            self.step, self.since = loaded[0]["counts"].tolist()
            self.pace = float(loaded[0]["pace"])


def metrics(folder):
    """Lines of metrics.jsonl, but for what a clock says."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if "per_second" not in k} for line in lines]


def interrupt(number=signal.SIGINT):
    os.kill(os.getpid(), number)
