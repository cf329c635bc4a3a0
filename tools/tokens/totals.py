"""What a file of conversations holds, in figures."""

import statistics

from json_lines import TokensError

BAR = 40


class Totals:
    """Counts conversations as they come."""

    def __init__(self):
        self.lengths, self.tokens, self.supervised = [], 0, 0
        self.unsupervised, self.left_out = 0, {}

    def add(self, mask):
        self.lengths.append(len(mask))
        self.tokens += len(mask)
        marked = sum(mask)
        self.supervised += marked
        self.unsupervised += marked == 0

    def leave_out(self, why):
        self.left_out[why] = self.left_out.get(why, 0) + 1

    def histogram(self):
        """[(lowest, highest, conversations)]: lengths between powers of two, from the first that occurs to the last."""
        powers = [n.bit_length() for n in self.lengths]
        if not powers:
            return []
        return [(1 << p >> 1, (1 << p) - 1, powers.count(p)) for p in range(min(powers), max(powers) + 1)]

    def as_json(self):
        seen = len(self.lengths)
        return {
            "conversations": seen,
            "tokens": self.tokens,
            "supervised_tokens": self.supervised,
            "without_supervision": self.unsupervised,
            "left_out": self.left_out,
            "lengths": {
                "min": min(self.lengths, default=0),
                "median": statistics.median(self.lengths) if seen else 0,
                "max": max(self.lengths, default=0),
                "histogram": [list(bin) for bin in self.histogram()],
            },
        }

    def text(self):
        seen, counted = len(self.lengths), self.as_json()
        if not seen:
            return "conversations        0" + self.left_out_text()
        lengths = counted["lengths"]
        lines = [
            f"conversations        {seen}" + self.left_out_text(),
            f"tokens               {self.tokens}, {self.supervised} of them supervised ({share(self.supervised, self.tokens)})",
            f"without supervision  {self.unsupervised} ({share(self.unsupervised, seen)})",
            f"tokens each          {lengths['min']} to {lengths['max']}, median {lengths['median']:g}, "
            f"mean {self.tokens / seen:.1f}",
        ]
        most = max(count for _, _, count in self.histogram())
        for low, high, count in self.histogram():
            bar = "#" * max(-(-BAR * count // most), 0)
            lines.append(f"{low:>8} to {high:<8} {bar:<{BAR}} {count}")
        return "\n".join(lines)

    def left_out_text(self):
        said = ", ".join(f"{count} {why}" for why, count in sorted(self.left_out.items()))
        return f" (left out: {said})" if said else ""

    def require_supervision(self, where):
        """TokensError where nothing at all would be learnt from."""
        if self.supervised == 0:
            said = self.left_out_text()
            raise TokensError(
                f"no token is supervised{said}",
                where,
                "Give conversations with answers; check --max-len, --mask and the chat template's marks",
            )


def share(part, whole):
    return f"{100 * part / whole:.1f} %" if whole else "0 %"
