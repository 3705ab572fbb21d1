//! AUROC, F1-max and AP from the counts at each threshold.

/// The positives and negatives that share one score, or negatives alone whose scores lie between two groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Group {
    pub positives: u64,
    pub negatives: u64,
}

/// The three figures.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Figures {
    pub auroc: f64,
    pub f1_max: f64,
    pub ap: f64,
}

/// The figures of groups in descending order of score; `None` if one class is missing.
///
/// A group of negatives alone may hold several scores: between two groups with positives only the false positives
/// grow, so F1 falls and precision is never read there, and the ROC curve runs level.
pub(super) fn figures(groups: impl Iterator<Item = Group> + Clone) -> Option<Figures> {
    let (positives, negatives) = groups
        .clone()
        .fold((0u64, 0u64), |(p, n), group| (p + group.positives, n + group.negatives));
    if positives == 0 || negatives == 0 {
        return None;
    }
    // Twice the number of (positive, negative) pairs in the right order, a tie counting half: exact.
    let mut ordered: u128 = 0;
    let (mut true_positives, mut false_positives) = (0u64, 0u64);
    let (mut f1_max, mut ap) = (0.0f64, 0.0f64);
    for group in groups {
        let below = negatives - false_positives - group.negatives;
        ordered += u128::from(group.positives) * u128::from(2 * below + group.negatives);
        true_positives += group.positives;
        false_positives += group.negatives;
        if group.positives > 0 {
            let predicted = (true_positives + false_positives) as f64;
            let found = true_positives as f64;
            f1_max = f1_max.max(2.0 * found / (predicted + positives as f64));
            ap += group.positives as f64 / positives as f64 * (found / predicted);
        }
    }
    let pairs = 2.0 * positives as f64 * negatives as f64;
    Some(Figures { auroc: ordered as f64 / pairs, f1_max, ap })
}
