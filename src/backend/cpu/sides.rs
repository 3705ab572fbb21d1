//! Queries and references that have been checked against each other, and who sees whom.

use crate::Result;
use crate::backend::features::{check_alike, unseen};
use crate::backend::{HostFeatures, References};

/// Queries and whom they are compared with.
pub struct Sides<'a> {
    /// The queries.
    pub queries: &'a HostFeatures,
    /// The references: the queries themselves, where they are compared with each other.
    pub references: &'a HostFeatures,
    /// Whether the queries are compared with each other.
    pub others: bool,
    /// For each query the references that it does not see, in rising order.
    unseen: Vec<Vec<usize>>,
}

impl<'a> Sides<'a> {
    /// Checks that the two fit together.
    ///
    /// # Errors
    /// Sizes that do not fit, inside one or between the two; no reference, or none but the query itself.
    pub fn new(
        queries: &'a HostFeatures,
        references: References<'a, HostFeatures>,
    ) -> Result<Self> {
        queries.check_sizes()?;
        let References::Set(references) = references else {
            let unseen = (0..queries.images).map(|image| vec![image]).collect();
            return Ok(Sides { queries, references: queries, others: true, unseen });
        };
        references.check_sizes()?;
        check_alike(queries, references)?;
        let unseen = unseen(&queries.known_content(), &references.known_content())?;
        Ok(Sides { queries, references, others: false, unseen })
    }

    /// Queries, and references that have been checked before, of which the tokens may be elsewhere.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn of_ready(queries: &'a HostFeatures, references: &'a HostFeatures) -> Result<Self> {
        queries.check_sizes()?;
        check_alike(queries, references)?;
        let unseen = unseen(&queries.known_content(), &references.content)?;
        Ok(Sides { queries, references, others: false, unseen })
    }

    /// References that a query sees.
    pub fn seen(&self, query: usize) -> usize {
        self.references.images - self.unseen[query].len()
    }

    /// References that a query sees at least.
    pub fn fewest_seen(&self) -> usize {
        let seen = (0..self.queries.images).map(|query| self.seen(query));
        seen.min().unwrap_or(self.references.images)
    }

    /// Whether a query sees a reference.
    pub fn sees(&self, query: usize, reference: usize) -> bool {
        self.unseen[query].binary_search(&reference).is_err()
    }

    /// The references that a query sees, in rising order.
    pub fn seen_by(&self, query: usize) -> Vec<usize> {
        (0..self.references.images).filter(|&reference| self.sees(query, reference)).collect()
    }

    /// Of one value a reference, `[M]`, those of the references that a query sees.
    pub fn values_seen(&self, query: usize, values: &[f32], seen: &mut Vec<f32>) {
        seen.clear();
        let mut start = 0;
        for &reference in &self.unseen[query] {
            seen.extend_from_slice(&values[start..reference]);
            start = reference + 1;
        }
        seen.extend_from_slice(&values[start..]);
    }

    /// Pairs of images that are compared, each once: of images that are compared with each other one pair for both.
    pub fn pairs(&self) -> u64 {
        let seen: usize = (0..self.queries.images).map(|query| self.seen(query)).sum();
        (if self.others { seen / 2 } else { seen }) as u64
    }
}

/// The patches of an image that are left out, `[L]`; empty where there are none.
pub fn left_out_of(features: &HostFeatures, image: usize) -> &[bool] {
    let patches = features.grid.patches();
    let marks = features.left_out.get(image * patches..(image + 1) * patches);
    marks.filter(|marks| marks.contains(&true)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Grid;

    fn features(content: &[u64]) -> HostFeatures {
        let images = content.len();
        HostFeatures::new(images, Grid::new(1, 2), 1, vec![0], vec![vec![0.5; images * 2]])
            .with_content(content.to_vec())
    }

    #[test]
    fn a_query_sees_all_but_itself() {
        let (queries, references) = (features(&[7, 1, 9]), features(&[1, 2, 9, 1]));
        let sides = Sides::new(&queries, References::Set(&references)).unwrap();
        let seen: Vec<_> = (0..3).map(|query| sides.seen_by(query)).collect();
        assert_eq!(seen, [vec![0, 1, 2, 3], vec![1, 2], vec![0, 1, 3]]);
        assert_eq!((sides.pairs(), sides.fewest_seen()), (9, 2));
        for (query, seen) in seen.iter().enumerate() {
            let mut values = Vec::new();
            sides.values_seen(query, &[0.0, 1.0, 2.0, 3.0], &mut values);
            assert_eq!(values, seen.iter().map(|&at| at as f32).collect::<Vec<_>>());
        }
        let sides = Sides::new(&queries, References::Others).unwrap();
        assert_eq!((sides.pairs(), sides.fewest_seen()), (3, 2));
        assert_eq!(sides.seen_by(1), [0, 2]);
    }

    #[test]
    fn content_that_nobody_named_is_taken_from_the_tokens() {
        let mut queries = features(&[0, 0]);
        queries.content.clear();
        let mut references = queries.clone();
        references.tokens[0][0] = 2.0;
        let sides = Sides::new(&queries, References::Set(&references)).unwrap();
        assert_eq!([sides.seen_by(0), sides.seen_by(1)], [vec![0], vec![0]]);
    }
}
