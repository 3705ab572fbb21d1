use super::*;

fn by(rule: &str, scores: &[f32]) -> f64 {
    threshold(rule.parse().unwrap(), scores, &[]).unwrap()
}

fn defective(rule: &str, scores: &[f32]) -> usize {
    let threshold = by(rule, scores);
    scores.iter().filter(|score| f64::from(**score) > threshold).count()
}

#[test]
fn shortest_half_is_its_definition() {
    // The shortest interval that holds three of six is 1, 1.25, 1.5: c = 1.25. Below or at it: 0.25, 1, 1.25, with squares
    // 1, 0.0625, 0.
    let scores = [9.0, 1.5, 0.25, 1.0, 4.0, 1.25];
    let sigma = (1.0625f64 / 3.0).sqrt();
    assert!((by("shortest-half", &scores) - (1.25 + 3.5 * sigma)).abs() < 1e-15);
    assert!((by("shortest-half:2", &scores) - (1.25 + 2.0 * sigma)).abs() < 1e-15);
    // Five hold three; of equally short intervals the lowest counts.
    assert_eq!(by("shortest-half:0", &[1.0, 2.0, 3.0, 4.0, 5.0]), 2.0);
    assert_eq!(by("shortest-half", &[0.5]), 0.5);
    assert_eq!(by("shortest-half", &[0.1; 7]), f64::from(0.1f32));
    assert_eq!(defective("shortest-half", &[0.1; 7]), 0);
}

#[test]
fn gap_is_its_definition() {
    // The shortest interval that holds four of eight is 0.5 to 1.5, the lower of two: c = 1, and σ² = 0.25/3 of 0.5, 1 and 1.
    // From c + σ = 1.29 to c + 6σ = 2.73 there are 1.5, 2 and 2.25; the widest of the gaps 0.21, 0.5, 0.25 and 0.48 ends at 2.
    let scores = [4.0, 1.0, 1.5, 0.5, 2.25, 1.0, 3.75, 2.0];
    assert_eq!(by("gap", &scores), 1.75);
    assert_eq!(defective("gap", &scores), 4);
    // Up to 4.46 the widest one is from 2.25 to 3.75.
    assert_eq!(by("gap:12", &scores), 3.0);
    // The upper end counts as a score: at 3.5 the widest one ends there.
    let sigma = (0.25f64 / 3.0).sqrt();
    let found = by(&format!("gap:{}", 2.5 / sigma), &scores);
    assert!((found - (2.25 + 3.5) / 2.0).abs() < 1e-12, "{found}");
    // c = 1.5 and σ = 0.5: from 2 to 3 there is nothing.
    assert_eq!(by("gap:3", &[1.0, 2.0, 3.0, 100.0]), 2.5);
    // Without scatter the threshold is the one score there is.
    assert_eq!(defective("gap", &[0.1; 7]), 0);
    assert_eq!(by("gap", &[0.5]), 0.5);
    assert_eq!(DecisionRule::default(), "gap".parse().unwrap());
}

#[test]
fn quantiles_and_shares_count_images() {
    let scores: Vec<f32> = (0..11).rev().map(|at| at as f32).collect();
    assert_eq!(by("quantile:0.25", &scores), 2.5);
    assert_eq!((by("quantile:0", &scores), by("quantile:1", &scores)), (0.0, 10.0));
    for (share, count) in [("0", 0), ("0.04", 0), ("0.05", 1), ("0.2", 2), ("0.5", 6), ("1", 11)] {
        assert_eq!(defective(&format!("share:{share}"), &scores), count, "{share}");
    }
    assert_eq!(defective("4.5", &scores), 6);
    assert_eq!(defective("10", &scores), 0);
}

#[test]
fn f1_is_the_best_there_is() {
    let mut state = 7u32;
    let mut next = move |limit: u32| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) % limit
    };
    for count in [1, 2, 3, 17, 64] {
        let scores: Vec<f32> = (0..count).map(|_| next(12) as f32 / 8.0).collect();
        let mut labels: Vec<Option<bool>> = (0..count).map(|_| Some(next(3) == 0)).collect();
        labels[count - 1] = Some(true);
        let f1 = |threshold: f64| {
            let ng = |at: &usize| f64::from(scores[*at]) > threshold;
            let found = (0..count).filter(ng).count();
            let hits = (0..count).filter(ng).filter(|at| labels[*at] == Some(true)).count();
            let all = labels.iter().filter(|label| **label == Some(true)).count();
            2.0 * hits as f64 / (found + all) as f64
        };
        let found = f1(threshold(DecisionRule::F1, &scores, &labels).unwrap());
        let best = scores.iter().map(|&s| f1(f64::from(s))).fold(f1(-1.0), f64::max);
        assert_eq!(found, best, "{count}");
    }
}

#[test]
fn rules_read_as_they_are_written() {
    let rules = [
        "gap",
        "gap:4.5",
        "shortest-half",
        "shortest-half:3",
        "quantile:0.95",
        "share:0.1",
        "f1",
        "mebin",
        "0.31",
        "-1",
    ];
    for text in rules {
        assert_eq!(text.parse::<DecisionRule>().unwrap().to_string(), text);
    }
    for text in [
        "",
        "otsu",
        "quantile",
        "quantile:2",
        "quantile:x",
        "share:-0.1",
        "f1:1",
        "mebin:4",
        "nan",
        "inf",
    ] {
        let said = text.parse::<DecisionRule>().unwrap_err().to_string();
        assert!(said.starts_with("decision rule") && said.contains("expected"), "{said}");
    }
    for text in [
        "gap:0.5",
        "gap:nan",
        "gap:x",
        "shortest-half:-1",
        "shortest-half:nan",
        "share:nan",
        "quantile:nan",
    ] {
        text.parse::<DecisionRule>().unwrap_err();
    }
}

#[test]
fn what_cannot_be_decided_is_named() {
    let says = |rule, scores: &[f32], labels: &[Option<bool>], part: &str| {
        let said = threshold(rule, scores, labels).unwrap_err().to_string();
        assert!(said.contains(part), "{said}");
    };
    says(DecisionRule::Gap { sigmas: 0.5 }, &[0.0], &[], "sigmas of the gap: found 0.5");
    says(DecisionRule::default(), &[], &[], "found 0");
    says(DecisionRule::default(), &[0.0, f32::NAN], &[], "NaN of image 1");
    says(DecisionRule::ShortestHalf { sigmas: f64::NAN }, &[0.0], &[], "NaN");
    says(DecisionRule::Share(1.5), &[0.0], &[], "1.5");
    says(DecisionRule::Quantile(f64::NAN), &[0.0], &[], "from 0 to 1");
    says(DecisionRule::Value(f64::INFINITY), &[0.0], &[], "inf");
    says(DecisionRule::Mebin, &[0.0], &[], "found mebin, expected a rule with one threshold");
    says(DecisionRule::F1, &[0.0, 1.0], &[Some(true), None], "found 1");
    says(DecisionRule::F1, &[0.0], &[Some(false)], "defective images");
}
