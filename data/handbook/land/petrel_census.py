"""Estimate how many storm petrels nest on Skua Point, from a walk with a loudspeaker.

Storm petrels come ashore only in darkness and hide by day in burrows and between stones, so they
cannot be counted by eye. What can be counted is answers: the warden plays twenty seconds of the
male's purring call at each possible hole, at noon in the second half of June, and writes down
whether anything purrs back.

Not every bird at home answers. The share that does, the *response rate*, is measured on a few
burrows whose owners are known from the endoscope camera, and differs from year to year: 0.42 in
2021, 0.37 in 2022, and 0.29 in the wet June of 2023. Dividing by the wrong year's rate once
turned a decline into a boom (see the annual report for 2017, corrected in 2018); this is why the
rate has no default here.
"""

from dataclasses import dataclass
from math import sqrt


@dataclass(frozen=True)
class Survey:
    """One year's walk over the numbered plots."""

    answers: int
    """Holes from which a bird replied, over all plots."""
    known_nests: int
    """Nests under camera that were certainly occupied on the day."""
    known_answers: int
    """How many of those replied to the loudspeaker."""
    share_walked: float
    """Part of the colony's area that was walked, between 0 and 1. Usually 0.55: the north slope
    is too steep."""


def response_rate(survey: Survey) -> float:
    """Return the share of birds at home that answer the recording.

    Fewer than twenty known nests give a rate too rough to use, and then the survey is refused
    instead of being published with a wide shrug.
    """
    if survey.known_nests < 20:
        raise ValueError(
            f"{survey.known_nests} known nests are too few; check at least 20 by camera"
        )
    return survey.known_answers / survey.known_nests


def breeding_pairs(survey: Survey) -> tuple[float, float]:
    """Return the number of pairs and its standard error.

    The error joins two doubts: the chance of each bird's answering, and our ignorance of the rate
    itself. It leaves out the third and largest, whether the steep slope is as densely settled as
    the rest. Ringers who have hung there on a rope say that it is denser.
    """
    rate = response_rate(survey)
    pairs = survey.answers / rate / survey.share_walked
    doubt_of_answers = (1 - rate) / max(survey.answers, 1)
    doubt_of_rate = (1 - rate) / (rate * survey.known_nests)
    return pairs, pairs * sqrt(doubt_of_answers + doubt_of_rate)


JUNE_2023 = Survey(answers=318, known_nests=41, known_answers=12, share_walked=0.55)
"""The last published walk: some 1,980 pairs, give or take 490."""
