"""Whether healthy people of one place score higher than those of another's calibration."""

from typing import Any, NamedTuple

from scipy.stats import betabinom, ks_2samp

from pathology_screen.calibration.store import Calibration, Rate, image_rank

ALARM = 0.05
"""Share of comparisons without drift in which there is an alarm, at most."""


class Drift(NamedTuple):
    """How healthy people of one place score under the calibration of another.

    Attributes:
        above: how many exceed the other's image threshold, or its highest score where its people
            are too few for a threshold.
        expected: how many would on average, without drift.
        p_value: probability that so many or more do, without drift (`exceedance_law`).
        distance: greatest difference of the two cumulative distributions of scores, 0 to 1.
        distance_p_value: p-value of this distance (Kolmogorov and Smirnov); no part in the alarm.
    """

    above: Rate
    expected: float
    p_value: float
    distance: float
    distance_p_value: float

    @property
    def alarm(self) -> bool:
        """Whether more exceed the threshold than chance explains (one-sided, at `ALARM`)."""
        return self.p_value <= ALARM


def exceedance_law(people: int, new: int, subject_fpr: float) -> Any:
    """Return the law (frozen, of scipy) of the number of new healthy people above the threshold of
    a calibration for a rate.

    Of n people calibrated on, the threshold is the k-th highest score. A new person like them
    exceeds it with a probability that itself is a draw of Beta(k, n - k + 1), whatever the
    distribution of scores, so that of m new people a number exceeds it that follows the
    beta-binomial law with these parameters. Without drift more than 5 % of them exceed the 5 %
    threshold of 20 people in a third of all comparisons, which therefore is no reason for alarm.
    Too few people for the rate have k = 1.
    """
    k = max(1, image_rank(people, subject_fpr))
    return betabinom(new, k, people - k + 1)


def measure_drift(shipped: Calibration, local: Calibration, subject_fpr: float = 0.05) -> Drift:
    """Compare the healthy of `local` with the image threshold of `shipped` for this rate."""
    k = max(1, image_rank(shipped.n_subjects, subject_fpr))
    above = local.above(float(shipped.subject_scores[-k]))
    law = exceedance_law(shipped.n_subjects, local.n_subjects, subject_fpr)
    test = ks_2samp(local.subject_scores, shipped.subject_scores)
    p_value = float(law.sf(above.count - 1))
    return Drift(above, float(law.mean()), p_value, float(test.statistic), float(test.pvalue))
