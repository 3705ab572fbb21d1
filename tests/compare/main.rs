//! The comparisons that the other tests are made of: what has to fail fails.

#[path = "../common/compare.rs"]
mod compare;

use std::panic::catch_unwind;

use compare::{Random, assert_within, floats, largest_difference, relative_l2};

/// Whether the three comparisons come back, the first with a bound that no finite number is outside of.
fn passes(got: &[f32], expected: &[f64]) -> [bool; 3] {
    [
        catch_unwind(|| assert_within("values", got, expected, |_| 1e30)).is_ok(),
        catch_unwind(|| largest_difference("values", got, expected)).is_ok(),
        catch_unwind(|| relative_l2("values", got, expected)).is_ok(),
    ]
}

#[test]
fn not_a_number_fails_wherever_it_stands() {
    let (got, expected) = ([1.0f32, 2.0, 3.0, 4.0, 5.0], [5.0f64, 4.0, 3.0, 2.0, 1.0]);
    assert_eq!(passes(&got, &expected), [true; 3]);
    for at in [0, 2, 4] {
        let mut bad = got;
        bad[at] = f32::NAN;
        assert_eq!(passes(&bad, &expected), [false; 3], "found, at {at}");
        let mut bad = expected;
        bad[at] = f64::NAN;
        assert_eq!(passes(&got, &bad), [false; 3], "expected, at {at}");
        let bound = |of: usize| if of == at { f64::NAN } else { 10.0 };
        // Equal values are within any bound, so the middle one has none to be outside of.
        let other = if at == 2 { [1.0; 5] } else { expected };
        assert!(catch_unwind(|| assert_within("values", &got, &other, bound)).is_err(), "{at}");
        // A value that does not count has to be a number too.
        let mut bad = got;
        bad[at] = f32::NAN;
        assert!(catch_unwind(|| assert_within("v", &bad, &expected, |_| f64::INFINITY)).is_err());
    }
    // On both sides it is no agreement either.
    assert_eq!(passes(&[f32::NAN], &[f64::NAN]), [false; 3]);
    // An infinity is its own equal, and has no length.
    assert_eq!(passes(&[f32::INFINITY], &[f64::INFINITY]), [true, true, false]);
    assert_eq!(passes(&[f32::INFINITY], &[f64::NEG_INFINITY]), [false, true, false]);
    assert_eq!(passes(&[1.0], &[1.0, 1.0]), [false; 3]);
}

#[test]
fn the_bound_is_kept_to_the_last_bit() {
    let bound = |at: usize| [0.5, 0.25, 0.0][at];
    assert_eq!(assert_within("values", &[1.5f32, 2.0, 3.0], &[1.0f32, 2.25, 3.0], bound), 1.0);
    assert_eq!(assert_within("none", &[0.0f32; 0], &[0.0f32; 0], |_| 0.0), 0.0);
    for (got, at) in [([1.5001f32, 2.0, 3.0], 0), ([1.0, 1.9, 3.0], 1), ([1.0, 2.0, 3.0001], 2)] {
        let failed = catch_unwind(|| assert_within("these", &got, &[1.0, 2.25, 3.0], bound));
        let said = failed.expect_err("outside its bound");
        let said = said.downcast_ref::<String>().expect("text");
        assert!(
            said.starts_with(&format!("these: at {at} found {}", f64::from(got[at]))),
            "{said}"
        );
    }
}

#[test]
fn distances() {
    assert_eq!(largest_difference("values", &[1.0f32, 5.0, 3.0], &[1.5f32, 3.0, 3.0]), 2.0);
    assert_eq!(relative_l2("values", &[3.0f32, 4.5], &[3.0f32, 4.0]), 0.1);
    assert_eq!(relative_l2("values", &[0.0f32; 3], &[0.0f32; 3]), 0.0);
    assert_eq!(relative_l2("values", &[1.0f32], &[0.0f32]), f64::INFINITY);
}

#[test]
fn tensors_as_numbers() {
    let values = [1.5f32, -0.0, f32::MAX];
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let view = |dtype, shape| safetensors::tensor::TensorView::new(dtype, shape, &bytes).unwrap();
    let tensors = [
        ("f32", view(safetensors::Dtype::F32, vec![3])),
        ("u8", view(safetensors::Dtype::U8, vec![12])),
    ];
    let file = safetensors::serialize(tensors, None).unwrap();
    let file = safetensors::SafeTensors::deserialize(&file).unwrap();
    assert_eq!(floats(&file, "f32"), values);
    assert!(catch_unwind(|| floats(&file, "u8")).is_err());
    assert!(catch_unwind(|| floats(&file, "none")).is_err());
}

#[test]
fn the_generator_gives_known_numbers() {
    // The first numbers of SplitMix64 from 1234567, as published with it.
    let mut random = Random(1_234_567);
    assert_eq!(random.bits(), 6_457_827_717_110_365_317);
    assert_eq!(random.bits(), 3_203_168_211_198_807_973);
    let values = random.vec(10_000, 2.0);
    assert!(values.iter().all(|value| (-2.0..2.0).contains(value)));
    assert!(values.iter().any(|&value| value < -1.9) && values.iter().any(|&value| value > 1.9));
    assert!((0..1000).all(|_| random.below(7) < 7));
}
