"""What was compared, how often, and the first few differences of each kind."""

SAMPLES = 5


class Findings:
    def __init__(self):
        self.checked = {}
        self.wrong = {}
        self.samples = {}

    def equal(self, what, expected, found, where=""):
        self.checked[what] = self.checked.get(what, 0) + 1
        if expected == found:
            return True
        self.wrong[what] = self.wrong.get(what, 0) + 1
        kept = self.samples.setdefault(what, [])
        if len(kept) < SAMPLES:
            kept.append({"where": str(where), "recomputed": expected, "found": found})
        return False

    def true(self, what, holds, where=""):
        return self.equal(what, True, bool(holds), where)

    def summary(self):
        return {"equal": not self.wrong, "checked": dict(sorted(self.checked.items())),
                "wrong": dict(sorted(self.wrong.items())), "samples": self.samples}
