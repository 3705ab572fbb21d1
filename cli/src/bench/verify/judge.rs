//! What an output has to be, element by element, and how far off it was.

use serde_json::{Value, json};

/// What one element of an output has to be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Want {
    /// A number, and how far off it may be: 0 for equal bits (the signs of zeros aside).
    Near(f64, f64),
    /// What was there before: the kernel has no business here.
    Untouched,
    /// NaN.
    NotANumber,
    /// Written, with a number; which one is not worked out.
    Written,
    /// Anything at all.
    Free,
}

/// What a pass found in one output.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// The elements as numbers.
    pub numbers: Vec<f64>,
    /// Those that are, bit by bit, what they were before the launch.
    pub as_before: Vec<bool>,
    /// Whether what was there before is no possible result: then what is as before was not written.
    pub poisoned: bool,
    /// Bytes in front of the output and behind it that the launch changed.
    pub margin: usize,
}

/// How an output came out.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Judged {
    /// Elements that were compared with a number.
    pub compared: usize,
    /// Whether all of those had to have equal bits.
    pub exact: bool,
    /// Of them, those beyond their bound.
    pub beyond: usize,
    /// The largest error over its own bound; above 1 it is beyond. Infinite where the bound is 0.
    pub worst: f64,
    /// Index of that element.
    pub worst_at: usize,
    /// The largest |found − expected|, and the bound of that element.
    pub max_abs: (f64, f64),
    /// ‖found − expected‖ / ‖expected‖, and ‖bounds‖ / ‖expected‖.
    pub relative: (f64, f64),
    /// Mean of the error in the direction of the expected number: below 0, numbers come out too near zero.
    pub bias: f64,
    /// Standard deviation of the error.
    pub spread: f64,
    /// Elements that are NaN and must not be, or the other way round.
    pub nan: usize,
    /// Elements that nobody wrote, in either pass.
    pub unwritten: usize,
    /// Elements that were written and must not be.
    pub overwritten: usize,
    /// Bytes around the output that were changed.
    pub margin: usize,
    /// Elements whose bits differ between the two passes.
    pub unsteady: usize,
    /// Inputs that were changed.
    pub inputs: Vec<String>,
}

impl Judged {
    /// Of two passes that began with other bits in the memory.
    pub fn new(first: &Found, second: &Found, wants: &[Want]) -> Judged {
        let mut judged =
            Judged { exact: true, margin: first.margin + second.margin, ..Judged::default() };
        // Lengths that differ count whole.
        let (lengths, all) = ([first.numbers.len(), second.numbers.len()], wants.len());
        judged.beyond += lengths.iter().map(|&length| length.abs_diff(all)).sum::<usize>();
        let (mut errors, mut squares, mut size, mut limits, mut sum) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for (at, want) in wants.iter().enumerate() {
            let pass = |found: &Found| {
                let number = found.numbers.get(at).copied().unwrap_or(f64::NAN);
                (number, found.as_before.get(at).copied().unwrap_or(false))
            };
            let ((found, before), (again, still)) = (pass(first), pass(second));
            let same = found == again || (found.is_nan() && again.is_nan());
            if !matches!(want, Want::Free | Want::Untouched) {
                if first.poisoned && before && still {
                    judged.unwritten += 1;
                    continue;
                }
                judged.unsteady += usize::from(!same);
            }
            match *want {
                Want::Free => {}
                Want::Untouched => judged.overwritten += usize::from(!before || !still),
                Want::NotANumber => judged.nan += usize::from(!found.is_nan()),
                Want::Written => judged.nan += usize::from(found.is_nan()),
                Want::Near(expected, bound) => {
                    judged.compared += 1;
                    judged.exact &= bound == 0.0;
                    if found.is_nan() || expected.is_nan() || bound.is_nan() {
                        judged.nan += 1;
                        continue;
                    }
                    let error = if found == expected { 0.0 } else { found - expected };
                    let ratio = if error == 0.0 { 0.0 } else { error.abs() / bound };
                    judged.beyond += usize::from(ratio > 1.0);
                    if ratio > judged.worst {
                        (judged.worst, judged.worst_at) = (ratio, at);
                    }
                    if error.abs() > judged.max_abs.0 || judged.compared == 1 {
                        judged.max_abs = (error.abs(), bound);
                    }
                    errors += error;
                    sum += error * if expected < 0.0 { -1.0 } else { 1.0 };
                    squares += error * error;
                    size += expected * expected;
                    limits += bound * bound;
                }
            }
        }
        judged.exact &= judged.compared > 0;
        if judged.compared > 0 {
            let count = judged.compared as f64;
            let scale = size.sqrt().max(f64::MIN_POSITIVE);
            judged.relative = (squares.sqrt() / scale, limits.sqrt() / scale);
            judged.bias = sum / count;
            judged.spread = (squares / count - (errors / count).powi(2)).max(0.0).sqrt();
        }
        judged
    }

    /// What is wrong, in words; nothing where all is as it has to be.
    pub fn faults(&self) -> Vec<String> {
        let counts = [
            (self.beyond, "elements beyond their bound"),
            (self.nan, "elements with NaN in the wrong place"),
            (self.unwritten, "elements not written"),
            (self.overwritten, "elements written that are not the kernel's"),
            (self.margin, "bytes changed around the output"),
            (self.unsteady, "elements that differ between two launches"),
        ];
        let said = counts.iter().filter(|(count, _)| *count > 0);
        let mut said: Vec<String> = said.map(|(count, what)| format!("{count} {what}")).collect();
        said.extend(self.inputs.iter().map(|input| format!("input {input} changed")));
        if self.beyond > 0 && self.worst > 0.0 {
            said.push(format!("worst {:.1} times its bound, at {}", self.worst, self.worst_at));
        }
        said
    }

    /// Whether it is what it has to be.
    pub fn verified(&self) -> bool {
        self.faults().is_empty()
    }

    /// As a document.
    pub fn json(&self) -> Value {
        // JSON has no infinity: an error where equal bits are due.
        let number = |value: f64| if value.is_finite() { json!(value) } else { json!("infinite") };
        json!({
            "verdict": if self.verified() { "verified" } else { "differs" },
            "class": if self.exact { "exact" } else { "rounding" },
            "compared": self.compared,
            "worst_over_bound": number(self.worst),
            "max_abs": number(self.max_abs.0),
            "max_abs_bound": number(self.max_abs.1),
            "relative_l2": number(self.relative.0),
            "relative_l2_bound": number(self.relative.1),
            "bias_from_zero": number(self.bias),
            "spread": number(self.spread),
            "faults": self.faults(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(numbers: &[f64]) -> Found {
        let as_before = vec![false; numbers.len()];
        Found { numbers: numbers.to_vec(), as_before, poisoned: true, margin: 0 }
    }

    #[test]
    fn every_kind_of_fault_is_told() {
        let wants = [Want::Near(1.0, 0.1), Want::NotANumber, Want::Untouched, Want::Written];
        let mut good = found(&[1.05, f64::NAN, 9.0, 2.0]);
        good.as_before[2] = true;
        let judged = Judged::new(&good, &good, &wants);
        assert!(judged.verified() && judged.compared == 1, "{judged:?}");
        assert!((judged.worst - 0.5).abs() < 1e-9 && (judged.bias - 0.05).abs() < 1e-9);
        type Change = fn(&mut Found);
        let faults: [(Change, &str); 8] = [
            (|f| f.numbers[0] = 1.2, "beyond their bound"),
            (|f| f.numbers[0] = f64::NAN, "NaN in the wrong place"),
            (|f| f.numbers[1] = 0.0, "NaN in the wrong place"),
            (|f| f.numbers[3] = f64::NAN, "NaN in the wrong place"),
            (|f| f.as_before[0] = true, "not written"),
            (|f| f.as_before[2] = false, "not the kernel's"),
            (|f| f.margin = 3, "around the output"),
            (|f| f.numbers.truncate(3), "beyond their bound"),
        ];
        for (change, told) in faults {
            let mut bad = good.clone();
            change(&mut bad);
            let said = Judged::new(&bad, &bad, &wants).faults().join("; ");
            assert!(said.contains(told), "{told}: {said}");
        }
        let mut other = good.clone();
        other.numbers[0] = 0.95;
        let said = Judged::new(&good, &other, &wants).faults().join("; ");
        assert!(said.contains("differ between two launches"), "{said}");
    }

    #[test]
    fn equal_bits_are_equal_numbers() {
        let exact = [Want::Near(0.0, 0.0), Want::Near(3.0, 0.0), Want::Near(f64::INFINITY, 0.0)];
        assert!(
            Judged::new(
                &found(&[-0.0, 3.0, f64::INFINITY]),
                &found(&[0.0, 3.0, f64::INFINITY]),
                &exact
            )
            .verified()
        );
        let off = found(&[0.0, 3.0 + f64::EPSILON * 4.0, f64::INFINITY]);
        let judged = Judged::new(&off, &off, &exact);
        assert_eq!((judged.beyond, judged.worst), (1, f64::INFINITY));
        assert_eq!(judged.json()["worst_over_bound"], "infinite");
    }
}
