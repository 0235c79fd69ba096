//! The name that was probably meant.

/// The name nearest to what was written, if one is near enough to be meant: a third of its letters may differ, or two.
pub(super) fn nearest<'a>(written: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let folded = written.to_lowercase().replace('-', "_");
    names
        .into_iter()
        .map(|name| (distance(&folded, &name.to_lowercase().replace('-', "_")), name))
        .filter(|(far, name)| *far <= (name.chars().count() / 3).max(2) && *far < name.chars().count())
        .min()
        .map(|(_, name)| name)
}

/// How many letters must be put in, left out, replaced or swapped with their neighbour to make one of the other.
pub(super) fn distance(left: &str, right: &str) -> usize {
    let (left, right): (Vec<char>, Vec<char>) = (left.chars().collect(), right.chars().collect());
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=right.len()).collect();
    for (row, &l) in left.iter().enumerate() {
        let mut this = vec![row + 1];
        for (column, &r) in right.iter().enumerate() {
            let at = |line: &[usize], column: usize| line.get(column).copied().unwrap_or(usize::MAX / 2);
            let replaced = at(&last, column) + usize::from(l != r);
            let removed = at(&last, column + 1) + 1;
            let added = at(&this, column) + 1;
            let swapped = match (row.checked_sub(1), column.checked_sub(1)) {
                (Some(up), Some(before)) if left.get(up) == Some(&r) && right.get(before) == Some(&l) => {
                    at(&before_last, before) + 1
                }
                _ => usize::MAX,
            };
            this.push(replaced.min(removed).min(added).min(swapped));
        }
        before_last = std::mem::replace(&mut last, this);
    }
    last.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distance_counts_letters_and_swaps() {
        for (left, right, far) in [
            ("", "", 0),
            ("abc", "", 3),
            ("", "abc", 3),
            ("abc", "abc", 0),
            ("abc", "acb", 1),
            ("bucket", "bukcets", 2),
        ] {
            assert_eq!(distance(left, right), far, "{left} {right}");
        }
    }

    #[test]
    fn the_nearest_name_is_the_one_that_was_meant() {
        let names = ["size", "interval", "compression", "retry_for"];
        for (written, meant) in [
            ("sise", Some("size")),
            ("intervall", Some("interval")),
            ("compresion", Some("compression")),
            ("retry-for", Some("retry_for")),
            ("Interval", Some("interval")),
            ("banana", None),
            ("", None),
        ] {
            assert_eq!(nearest(written, names), meant, "{written}");
        }
    }
}
