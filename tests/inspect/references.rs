//! New images against references that were learned.

use musc::inspect::Batch;

use crate::support::{builder, exact, frame, frames};

fn some(seeds: impl IntoIterator<Item = usize>) -> Batch {
    Batch::images(seeds.into_iter().map(|seed| frame(seed, 56, 56)).collect()).unwrap()
}

#[test]
fn a_query_does_not_depend_on_the_others() {
    let inspector = builder().build().unwrap();
    let references = inspector.learn(&some([0, 1, 2, 3, 4, 5]), &()).unwrap();
    assert_eq!((references.len(), references.raw_scores().len()), (6, 6));
    let together = inspector.compare(&some([6, 8, 9]), &references, &()).unwrap();
    for (at, seed) in [6, 8, 9].into_iter().enumerate() {
        let alone = inspector.compare(&some([seed]), &references, &()).unwrap();
        assert_eq!(alone.raw_scores()[0].to_bits(), together.raw_scores()[at].to_bits());
        assert_eq!(alone.scores()[0].to_bits(), together.scores()[at].to_bits());
    }
    // The one with the square.
    assert!(together.raw_scores()[0] > together.raw_scores()[1].max(together.raw_scores()[2]));
}

#[test]
fn a_reference_is_not_compared_with_itself() {
    let inspector = exact().build().unwrap();
    let references = inspector.learn(&some(0..6), &()).unwrap();
    let again = inspector.compare(&some(0..6), &references, &()).unwrap();
    for (one, other) in again.raw_scores().iter().zip(references.raw_scores()) {
        // A pair's product is the same; which of the two is its rows differs.
        let error = (one - other).abs();
        assert!(error <= 1e-5, "{one} {other}");
    }
}

#[test]
fn references_that_are_none_or_of_another_setting_are_refused() {
    let inspector = builder().build().unwrap();
    let twice = inspector.learn(&some([3, 3]), &()).unwrap();
    let said = inspector.compare(&some([3]), &twice, &()).unwrap_err().to_string();
    assert!(said.contains("own content"), "{said}");
    assert!(inspector.compare(&some([4]), &twice, &()).is_ok());
    let references = inspector.learn(&some(0..4), &()).unwrap();
    let other = builder().size(84).layers([3]).build().unwrap();
    let said = other.compare(&frames(2, 56, 56), &references, &()).unwrap_err().to_string();
    for part in ["size 84x84", "size 56x56", "layers [3]", "layers [1, 3]"] {
        assert!(said.contains(part), "{part} in {said}");
    }
    assert!(inspector.learn(&some([1]), &()).is_err());
}
