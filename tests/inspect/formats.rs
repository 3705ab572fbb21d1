//! Number formats: what tokens, parts, references and banks of one have to do with those of another.

use musc::Error;
use musc::backend::cpu::Instructions;
use musc::backend::device::Precision;
use musc::inspect::{Bank, Inspector, PartStore, Predictor};
use musc::scoring::decision::DecisionRule;
use serde_json::json;

use crate::support::{builder, frames};

fn with(precision: Precision) -> Inspector {
    builder().precision(precision).build().unwrap()
}

/// An inspector that does all in bf16; `None`, and said aloud, where the processor does not multiply it.
fn in_bf16() -> Option<Inspector> {
    match builder().precision(Precision::Bf16).build() {
        Ok(inspector) => Some(inspector),
        Err(Error::Device { reason, .. }) => {
            assert!(reason.contains(Instructions::Avx512Bf16.name()), "{reason}");
            println!("not tested in bf16, which this processor does not multiply: {reason}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn the_authors_quirks_take_f32_where_nothing_is_named() {
    let scoring = |inspector: Inspector| inspector.formats().scoring;
    let auto = scoring(with(Precision::Auto));
    assert_eq!(scoring(builder().build().unwrap()), auto);
    assert_eq!(scoring(builder().paper().build().unwrap()), "f32");
    assert_eq!(scoring(builder().paper().precision(None).build().unwrap()), "f32");
    // In either order.
    for named in
        [builder().precision(Precision::Auto).paper(), builder().paper().precision(Precision::Auto)]
    {
        assert_eq!(scoring(named.build().unwrap()), auto);
    }
    if in_bf16().is_some() {
        assert_eq!(auto, "bf16");
    }
}

#[test]
fn kept_tokens_are_those_of_their_format() {
    let folder = tempfile::tempdir().unwrap();
    let counts = |precision| {
        let one = builder().cache(folder.path(), 1 << 30).precision(precision).build().unwrap();
        one.inspect(&frames(3, 56, 56), &()).unwrap();
        let counts = one.cache_counts().unwrap();
        (counts.found, counts.made)
    };
    assert_eq!(counts(Precision::F32), (0, 3));
    // Another format of the scoring changes no token.
    assert_eq!(counts(Precision::Auto), (3, 0));
    if in_bf16().is_some() {
        assert_eq!(counts(Precision::Bf16), (0, 3));
        assert_eq!((counts(Precision::Bf16), counts(Precision::F32)), ((3, 0), (3, 0)));
    }
}

#[test]
fn a_store_has_parts_of_one_format() {
    let folder = tempfile::tempdir().unwrap();
    let batch = frames(4, 56, 56);
    let terms = |of: &Inspector| of.store_terms(&batch, &of.plan(&batch, &()).unwrap()).unwrap();
    let first = terms(&with(Precision::F32));
    let store = PartStore::open(folder.path(), &first, 1, &json!(null)).unwrap();
    assert_eq!(store.formats(), "f32");
    let refused = |of: &Inspector| {
        let error = PartStore::open(folder.path(), &terms(of), 1, &json!(null)).unwrap_err();
        error.to_string()
    };
    let others = [Some(with(Precision::Auto)), in_bf16()];
    for other in others.iter().flatten().filter(|other| other.formats().scoring != "f32") {
        let said = refused(other);
        let features = said.contains("numbers f32, this job bf16");
        assert_eq!(features, other.formats().features == "bf16", "{said}");
        assert!(said.contains("numbers in scoring f32, this job bf16"), "{said}");
        // Tokens alone know nothing of the scoring; who joins parts may be in any format.
        let (ours, theirs) = (first.of_tokens().job(1), terms(other).of_tokens().job(1));
        assert_eq!(ours == theirs, !features);
        store.check(&terms(other), 1, &musc::inspect::StoreTerms::NUMBERS).unwrap();
    }
    #[cfg(feature = "sim")]
    {
        let sim = builder().device(musc::backend::device::Device::Sim).build().unwrap();
        assert!(refused(&sim).contains("numbers f32, this job f16, on a card"));
        store.check(&terms(&sim), 1, &musc::inspect::StoreTerms::NUMBERS).unwrap();
    }
}

#[test]
fn references_are_compared_in_their_own_format() {
    let (f32s, auto) = (with(Precision::F32), with(Precision::Auto));
    let references = f32s.learn(&frames(3, 56, 56), &()).unwrap();
    f32s.compare(&frames(1, 56, 56), &references, &()).unwrap();
    let done = auto.compare(&frames(1, 56, 56), &references, &());
    if auto.formats().scoring == "f32" {
        done.unwrap();
    } else {
        let said = done.unwrap_err().to_string();
        assert!(said.contains("format of scoring bf16, expected format of scoring f32"), "{said}");
    }
}

/// The note that one of them is in bf16, among others.
fn noted(notes: &[musc::inspect::Note]) -> bool {
    notes.iter().any(|note| note.to_string().contains("the bank's features were made in"))
}

#[test]
fn a_bank_remembers_the_format_of_its_features() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.bank.safetensors");
    let one = with(Precision::F32);
    let made = one.bank(&frames(3, 56, 56), DecisionRule::default(), &()).unwrap();
    made.save(&path).unwrap();
    let bank = Bank::open(&path).unwrap();
    assert_eq!(
        (bank.settings(), bank.settings().features.join(", ")),
        (made.settings(), "f32".into())
    );
    assert!(one.note_of(&bank).is_none());
    assert!(!noted(one.inspect_with(&frames(5, 56, 56), &bank, &()).unwrap().notes()));
    #[cfg(feature = "sim")]
    {
        let sim = |precision| {
            let device = musc::backend::device::Device::Sim;
            builder().device(device).precision(precision).build().unwrap()
        };
        // Halves of 11 bits are what a bank rounds to itself.
        assert!(sim(Precision::Auto).note_of(&bank).is_none());
        assert!(sim(Precision::Bf16).note_of(&bank).is_some());
    }
    let Some(other) = in_bf16() else { return };
    assert!(other.note_of(&bank).is_some());
    let inspections = [
        other.inspect_with(&frames(5, 56, 56), &bank, &()).unwrap(),
        other.compare(&frames(5, 56, 56), &other.references(&bank).unwrap(), &()).unwrap(),
        Predictor::new(&other, bank.clone()).unwrap().predict(&frames(5, 56, 56), &()).unwrap(),
    ];
    assert!(inspections.iter().all(|found| noted(found.notes())));
    let mut sliding = Predictor::new(&other, bank.clone()).unwrap().keep(9).unwrap();
    sliding = sliding.with_rule(DecisionRule::Value(2.0)).unwrap();
    assert!(noted(sliding.predict(&frames(5, 56, 56), &()).unwrap().notes()));
    let features = |bank: &Bank| bank.settings().features.join(", ");
    assert_eq!(features(&sliding.bank()), "f32, bf16");
    let more = other.add_to_bank(bank, &frames(5, 56, 56), &()).unwrap();
    assert_eq!(features(&more), "f32, bf16");
    // Whoever asks it, some of it is in the other format.
    assert!(one.note_of(&more).is_some() && other.note_of(&more).is_some());
    assert_eq!(
        features(&other.bank(&frames(3, 56, 56), DecisionRule::default(), &()).unwrap()),
        "bf16"
    );
}
