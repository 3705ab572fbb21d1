use super::*;
use crate::metrics::image_curves;

fn plot(threshold: Option<f64>) -> ScorePlot {
    let scores = vec![0.1, 0.2, 0.2, 0.3, 0.9];
    let labels = vec![None, Some(false), Some(false), Some(true), Some(true)];
    ScorePlot::new(scores, labels, threshold).expect("plot")
}

fn written(write: impl FnOnce(&Path) -> Result<()>) -> String {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("plot.svg");
    write(&path).expect("write");
    std::fs::read_to_string(&path).expect("read")
}

/// Reads SVG as XML as far as well-formedness goes: tags nest and close, attributes are quoted and no text holds a bare `<` or `&`.
fn check_xml(text: &str) {
    let mut open: Vec<&str> = Vec::new();
    let mut rest = text.trim_end();
    let check_text = |text: &str| {
        for part in text.split('&').skip(1) {
            let name = part.split(';').next().expect("entity");
            assert!(["amp", "lt", "gt", "quot"].contains(&name), "&{part}");
        }
        assert!(text.chars().all(|c| c == '\n' || c == '\t' || c >= ' '), "control letter");
    };
    while let Some(at) = rest.find('<') {
        check_text(&rest[..at]);
        let end = rest[at..].find('>').expect("tag ends") + at;
        let tag = &rest[at + 1..end];
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "closed");
        } else {
            let name = tag.split(' ').next().expect("name");
            let mut attributes = tag[name.len()..].trim();
            while !attributes.is_empty() {
                let (key, value) = attributes.split_once("=\"").expect("quoted");
                assert!(key.chars().all(|c| c.is_ascii_alphabetic() || c == '-'), "{key}");
                let (value, behind) = value.split_once('"').expect("quote ends");
                check_text(value);
                attributes = behind.trim_start();
            }
            open.push(name);
        }
        rest = &rest[end + 1..];
    }
    assert!(open.is_empty() && rest.is_empty(), "left open: {open:?} {rest}");
}

#[test]
fn files_are_well_formed_and_titles_escaped() {
    let title = "a<script>\"&\u{1}'";
    let svg = written(|path| write_scores_svg(path, title, &plot(Some(0.25))));
    check_xml(&svg);
    assert!(svg.contains("<title>a&lt;script&gt;&quot;&amp;\u{fffd}'</title>"), "{svg}");
    assert!(svg.contains("threshold 0.2500: 2 of 5 NG"), "{svg}");
    let curves = image_curves(&[false, true, true, false], &[0.5, 0.5, 0.9, 0.1])
        .expect("curves")
        .expect("both");
    for kind in [CurveKind::Roc, CurveKind::PrecisionRecall] {
        let svg = written(|path| write_curve_svg(path, title, kind, &curves, Some(&curves)));
        check_xml(&svg);
        assert_eq!(svg.matches("class=\"curve").count(), 2, "{svg}");
    }
}

#[test]
fn bars_hold_every_image_and_the_threshold_cuts_them() {
    let plot = plot(Some(0.25));
    assert_eq!(plot.bins().iter().sum::<usize>(), 5);
    let svg = plot.markup("t", 3, &html! {}, false).0;
    // The threshold's place by the axis' own ends, 3 % of 0.8 beyond the scores.
    let cut = LEFT + (0.25 - (0.1 - 0.024)) / (0.8 + 0.048) * (RIGHT - LEFT);
    assert!(svg.contains(&format!("<rect class=\"cut-ng\" x=\"{}\"", short(cut))), "{svg}");
    assert!(svg.contains("id=\"ok-3\"") && svg.contains("url(#ng-3)"), "{svg}");
    // Marks: one unknown, two normal, two defective.
    for (class, count) in [("of-unknown", 1), ("of-normal", 2), ("of-defective", 2)] {
        let path = svg.split(class).nth(1).and_then(|rest| rest.split('>').next()).expect(class);
        assert_eq!(path.matches('M').count(), count, "{class}: {path}");
    }
}

#[test]
fn a_threshold_far_away_does_not_squeeze_the_scores() {
    let far = plot(Some(1e6));
    let (low, high) = far.axis();
    assert!(low < 0.1 && high > 0.9 && high < 1.0, "{low} {high}");
    assert_eq!(far.across(1e6), RIGHT);
    let (_, high) = plot(Some(1.2)).axis();
    assert!(high > 1.2, "{high}");
    assert_eq!(plot(Some(f64::NAN)).threshold, None);
}

#[test]
fn equal_scores_and_extreme_ones_are_drawn() {
    for scores in [vec![0.5; 4], vec![0.0; 2], vec![f32::MAX, f32::MIN], vec![1e-30, 2e-30]] {
        let labels = vec![None; scores.len()];
        let plot = ScorePlot::new(scores, labels, Some(0.5)).expect("plot");
        assert_eq!(plot.bins().iter().sum::<usize>(), plot.scores.len());
        let svg = written(|path| write_scores_svg(path, "t", &plot));
        check_xml(&svg);
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }
    assert!(ScorePlot::new(vec![], vec![], None).is_err());
    assert!(ScorePlot::new(vec![1.0], vec![], None).is_err());
    assert!(ScorePlot::new(vec![f32::NAN], vec![None], None).is_err());
}

#[test]
fn axes_have_round_values() {
    let texts = |low, high, about| -> Vec<String> {
        round_values(low, high, about).into_iter().map(|(_, text)| text).collect()
    };
    assert_eq!(texts(0.31, 0.72, 4), ["0.4", "0.6"]);
    assert_eq!(texts(0.0, 7.0, 3), ["0", "5"]);
    assert_eq!(texts(0.0, 1.0, 3), ["0.0", "0.5", "1.0"]);
    assert!(texts(1.0, 1.0, 3).is_empty() && texts(f64::NAN, 1.0, 3).is_empty());
}

#[test]
fn steps_of_precision_are_drawn_at_their_right_ends() {
    let curves = image_curves(&[false, true, true, false], &[0.5, 0.5, 0.9, 0.1])
        .expect("curves")
        .expect("both");
    let svg = curve_markup("t", CurveKind::PrecisionRecall, &curves, None, false).0;
    // Recall 0.5 at precision 1, recall 1 at 2/3: x 34 + 172·r, y 14 + 172·(1 − p).
    assert!(svg.contains("d=\"M34 14H120V71.33H206\""), "{svg}");
    let svg = curve_markup("t", CurveKind::Roc, &curves, None, false).0;
    assert!(svg.contains("d=\"M34 186L34 100L120 14L206 14\""), "{svg}");
    let many: Vec<(f64, f64)> = (0..=100_000).map(|at| (f64::from(at) / 1e5, 0.5)).collect();
    let thin = thinned(&many);
    assert!(thin.len() < 900 && thin[thin.len() - 1] == (1.0, 0.5), "{}", thin.len());
}
