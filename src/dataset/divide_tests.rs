use super::super::Mask;
use super::*;

fn samples(kinds: &[(&str, usize)]) -> Vec<Sample> {
    kinds
        .iter()
        .flat_map(|&(kind, count)| {
            (0..count).map(move |index| {
                let path = format!("{kind}/{index:03}.png");
                Sample::new(path, "bottle", kind, None, Mask::Unknown)
            })
        })
        .collect()
}

// The values of the next three tests were printed by CPython 3.11 (`random.seed(s)`, `random.getrandbits(32)`,
// `random.shuffle(list(range(n)))`).

#[test]
fn words_equal_pythons() {
    let words = |seed| {
        let mut random = PythonRandom::new(seed);
        [random.next_word(), random.next_word(), random.next_word()]
    };
    assert_eq!(words(42), [2746317213, 478163327, 107420369]);
    assert_eq!(words(0), [3626764237, 1654615998, 3255389356]);
    assert_eq!(words(u32::MAX), [2728839433, 2661025012, 872737089]);
}

#[test]
fn shuffles_equal_pythons_one_after_another() {
    let mut random = PythonRandom::new(42);
    let mut shuffled = |count: u32| {
        let mut values: Vec<u32> = (0..count).collect();
        random.shuffle(&mut values);
        values
    };
    assert!(shuffled(0).is_empty());
    assert_eq!(shuffled(1), [0]);
    assert_eq!(shuffled(2), [1, 0]);
    assert_eq!(shuffled(13), [8, 1, 7, 6, 10, 12, 5, 2, 9, 3, 4, 11, 0]);
    assert_eq!(
        shuffled(20),
        [5, 19, 13, 12, 17, 4, 15, 10, 16, 11, 3, 14, 18, 9, 8, 7, 6, 2, 0, 1]
    );
    assert_eq!(shuffled(8), [4, 3, 0, 6, 7, 1, 2, 5]);
}

#[test]
fn a_shuffle_longer_than_the_state_equals_pythons() {
    let mut values: Vec<u64> = (0..1500).collect();
    PythonRandom::new(42).shuffle(&mut values);
    assert_eq!(values[..8], [1303, 397, 386, 549, 597, 1113, 1365, 134]);
    assert_eq!(values[1492..], [209, 285, 457, 501, 563, 51, 228, 1309]);
    let sum: u64 = values.iter().enumerate().map(|(index, value)| index as u64 * value).sum();
    assert_eq!(sum, 843_153_938);
}

#[test]
fn subsets_equal_the_authors() {
    // Printed by the dealing rule of their data set classes, for these counts and three subsets.
    let samples = samples(&[("broken", 7), ("good", 11), ("scratch", 2)]);
    assert_eq!(
        divide(&samples, 3).unwrap(),
        [vec![1, 2, 5, 14, 13, 11, 8, 19], vec![3, 6, 17, 7, 16, 9, 18], vec![4, 0, 12, 10, 15],]
    );
}

#[test]
fn subsets_equal_the_authors_at_real_sizes() {
    // Printed by `sub_datasets` of the authors' three data set classes with their seed, for the numbers of images of
    // MVTec AD's bottle, of BTAD, of VisA, and for more images than the generator has words.
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/divide.json");
    let text = std::fs::read_to_string(path).unwrap();
    let cases: serde_json::Value = serde_json::from_str(&text).unwrap();
    let cases = cases.as_array().unwrap();
    assert_eq!(cases.len(), 12);
    for case in cases {
        let kinds: Vec<(String, usize)> = serde_json::from_value(case["kinds"].clone()).unwrap();
        let kinds: Vec<(&str, usize)> =
            kinds.iter().map(|(kind, count)| (kind.as_str(), *count)).collect();
        let subsets: Vec<Vec<usize>> = serde_json::from_value(case["subsets"].clone()).unwrap();
        let number = case["divide_num"].as_u64().unwrap() as usize;
        assert_eq!(divide(&samples(&kinds), number).unwrap(), subsets, "{kinds:?} by {number}");
    }
}

#[test]
fn one_subset_is_everything_in_order() {
    let samples = samples(&[("good", 5)]);
    assert_eq!(divide(&samples, 1).unwrap(), [vec![0, 1, 2, 3, 4]]);
}

#[test]
fn every_image_is_in_one_subset() {
    let samples = samples(&[("a", 17), ("b", 1), ("c", 8)]);
    for divide_num in 1..=17 {
        let subsets = divide(&samples, divide_num).unwrap();
        assert_eq!(subsets.len(), divide_num);
        assert!(subsets.iter().all(|subset| !subset.is_empty()));
        let mut all: Vec<usize> = subsets.concat();
        all.sort_unstable();
        assert_eq!(all, (0..26).collect::<Vec<usize>>());
    }
}

#[test]
fn no_subset_may_be_empty() {
    let samples = samples(&[("a", 17), ("b", 1)]);
    assert!(divide(&samples, 0).is_err());
    let error = divide(&samples, 18).unwrap_err();
    assert!(error.to_string().contains("divide_num: found 18, expected at most 17"), "{error}");
    assert!(divide(&[], 2).is_err());
}
